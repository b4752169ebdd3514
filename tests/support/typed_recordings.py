"""The recorded answers of the Responses API under tests/data/wire, framed as the provider frames them."""

import json
from pathlib import Path
from typing import Any

from gateway.domain.usage import Usage

DIRECTORY = Path(__file__).parent.parent / "data" / "wire" / "openai-responses"
NAMES = tuple(sorted(file.name.removesuffix(".chunks.txt") for file in DIRECTORY.glob("*.chunks.txt")))


def whole(name: str) -> bytes:
    """A whole answer."""
    return (DIRECTORY / f"{name}.json").read_bytes()


def events(name: str, line_end: bytes = b"\n") -> list[bytes]:
    """The events of its stream."""
    payloads = [line for line in (DIRECTORY / f"{name}.chunks.txt").read_bytes().split(b"\n") if line]
    return [event(json.loads(payload)["type"], payload, line_end) for payload in payloads]


def event(kind: str, payload: bytes, line_end: bytes = b"\n") -> bytes:
    """One event."""
    return b"event: " + kind.encode() + line_end + b"data: " + payload + 2 * line_end


def told(name: str, *, streamed: bool) -> Usage | None:
    """The usage as the provider told it: of all responses that a stream holds, as a run of several steps has."""
    if not streamed:
        return _usage([json.loads(whole(name))])
    payloads = [json.loads(line) for line in (DIRECTORY / f"{name}.chunks.txt").read_bytes().split(b"\n") if line]
    return _usage([payload.get("response", {}) for payload in payloads])


def _usage(answers: list[dict[str, Any]]) -> Usage | None:
    reports = [answer["usage"] for answer in answers if answer.get("usage")]
    if not reports:
        return None
    return Usage(
        sum(report["input_tokens"] for report in reports),
        sum(report["output_tokens"] for report in reports),
        sum(report["input_tokens_details"]["cached_tokens"] for report in reports),
        sum(report["output_tokens_details"]["reasoning_tokens"] for report in reports),
    )
