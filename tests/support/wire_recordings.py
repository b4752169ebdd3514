"""The recorded answers of Anthropic and Gemini under tests/data/wire, framed as each provider frames them.

`WHOLE` and `STREAMED` hold what each recording says of its usage, written down by hand: input, output, cached and
reasoning tokens.
"""

import json
from pathlib import Path

from gateway.domain.usage import Usage

DIRECTORY = Path(__file__).parent.parent / "data" / "wire"

WHOLE = {
    "anthropic/anthropic-clear-thinking.1": Usage(69, 33),
    "anthropic/anthropic-code-execution-20250825.1": Usage(7881, 608),
    "anthropic/anthropic-json-tool.1": Usage(1151, 87),
    "anthropic/anthropic-mcp.1": Usage(1250, 88),
    "anthropic/anthropic-refusal": Usage(18, 5),
    "anthropic/anthropic-text": Usage(12, 29),
    "anthropic/anthropic-web-fetch-tool.1": Usage(4234, 462),
    "gemini/google-reasoning": Usage(9, 311, 0, 282),
    "gemini/google-text": Usage(9, 272, 0, 244),
    "gemini/google-tool-call": Usage(29, 908, 0, 893),
}
STREAMED = {
    "anthropic/anthropic-clear-thinking.1": Usage(69, 53),
    "anthropic/anthropic-code-execution-20250825.1": Usage(8050, 771),
    "anthropic/anthropic-json-tool.1": Usage(849, 47),
    "anthropic/anthropic-mcp.1": Usage(1250, 83),
    "anthropic/anthropic-message-delta-input-tokens": Usage(61, 2),
    "anthropic/anthropic-refusal": Usage(18, 5),
    "anthropic/anthropic-text": Usage(12, 30),
    "anthropic/anthropic-web-fetch-tool.1": Usage(4230, 446),
    "gemini/google-reasoning": Usage(9, 285, 0, 256),
    "gemini/google-text": Usage(9, 208, 0, 185),
    "gemini/google-tool-call": Usage(29, 60, 0, 45),
}


def dialect_of(name: str) -> str:
    """Whose shape a recording has."""
    return name.partition("/")[0]


def whole(name: str) -> bytes:
    """A whole answer."""
    return (DIRECTORY / f"{name}.json").read_bytes()


def payloads(name: str) -> list[bytes]:
    """The JSON payloads of its stream."""
    return (DIRECTORY / f"{name}.chunks.txt").read_bytes().rstrip(b"\n").split(b"\n")


def events(name: str, line_end: bytes = b"") -> list[bytes]:
    """The events of its stream, lines ended as the provider ends them unless told otherwise."""
    anthropic = dialect_of(name) == "anthropic"
    end = line_end or (b"\n" if anthropic else b"\r\n")
    found = []
    for payload in payloads(name):
        head = b"event: " + json.loads(payload)["type"].encode() + end if anthropic else b""
        found.append(head + b"data: " + payload + 2 * end)
    return found


def array(name: str) -> bytes:
    """The stream as Gemini sends it without `alt=sse`: one JSON array, pretty-printed."""
    pretty = (json.dumps(json.loads(payload), indent=2).encode() for payload in payloads(name))
    return b"[" + b"\n,\r\n".join(pretty) + b"\n]\n"
