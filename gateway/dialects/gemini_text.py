"""The text of Gemini's answers, for the tokenizer. Never raises."""

from typing import Any

import msgspec

from gateway.dialects.json_body import UNREADABLE


class _Answer(msgspec.Struct, gc=False):
    candidates: Any = None


_answer = msgspec.json.Decoder(_Answer)


def answer_text(body: bytes) -> str:
    """The text of a whole answer, one candidate after the other; "" where it has none that can be read."""
    try:
        candidates = _answer.decode(body).candidates
    except UNREADABLE:
        return ""
    return "\n".join([text_of(candidate) for candidate in as_list(candidates)])


def text_of(candidate: Any) -> str:
    """What one candidate wrote: words, thoughts, calls of functions and code to be run."""
    content = candidate.get("content") if isinstance(candidate, dict) else None
    parts = content.get("parts") if isinstance(content, dict) else None
    return "".join([_part_text(part) for part in as_list(parts) if isinstance(part, dict)])


def as_list(value: Any) -> list[Any]:
    """The value, or nothing where it is no list."""
    return value if isinstance(value, list) else []


def _part_text(part: dict[str, Any]) -> str:
    text, call, code = part.get("text"), part.get("functionCall"), part.get("executableCode")
    said = text if isinstance(text, str) else ""
    if isinstance(call, dict):
        said += str(call.get("name") or "") + msgspec.json.encode(call.get("args")).decode()
    if isinstance(code, dict):
        said += str(code.get("code") or "")
    return said
