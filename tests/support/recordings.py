"""The recorded provider answers under tests/data/wire, framed as the provider frames them."""

import json
from pathlib import Path
from typing import Any

WIRE = Path(__file__).parent.parent / "data" / "wire"
NAMES = ("deepseek-tool-call", "groq-tool-call", "openai-completion-text", "openai-text", "xai-tool-call")

USAGE_ALONE = frozenset({"openai-completion-text", "openai-text", "xai-tool-call"})
"""Recordings whose usage comes in a chunk of its own; the others tell it in the last chunk with choices."""


def whole(name: str) -> bytes:
    """A whole answer."""
    return _file(f"{name}.json")


def payloads(name: str) -> list[bytes]:
    """The JSON payloads of its stream."""
    return _file(f"{name}.chunks.txt").rstrip(b"\n").split(b"\n")


def events(name: str, line_end: bytes = b"\n") -> list[bytes]:
    """The events of its stream, with the terminator."""
    return [b"data: " + payload + 2 * line_end for payload in (*payloads(name), b"[DONE]")]


def reported_usage(name: str, *, streamed: bool) -> dict[str, Any]:
    """The usage as the provider reported it."""
    found: dict[str, Any] = json.loads(payloads(name)[-1] if streamed else whole(name))["usage"]
    return found


def _file(name: str) -> bytes:
    [found] = WIRE.glob(f"openai-c*/{name}")
    return found.read_bytes()
