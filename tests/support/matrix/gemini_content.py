"""Gemini's generateContent and streamGenerateContent on the wire, as events and as one JSON array (Google,
"GenerateContentResponse"). Each chunk tells the count so far.
"""  # noqa: D205

import json
from dataclasses import dataclass
from typing import Any

from gateway.domain.usage import Usage
from tests.support.matrix.wire import WORD, billed

CALL = {"functionCall": {"name": "weather", "args": {"city": "Rome"}}}
GIVES_UP = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}


def report(usage: Usage, *, steps: bool) -> dict[str, Any]:
    """`usage` as it is told: what tools gave back is told apart from the prompt."""
    tools = {"toolUsePromptTokenCount": 10} if steps else {}
    return {
        "promptTokenCount": usage.input_tokens - sum(tools.values()),
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "thoughtsTokenCount": usage.reasoning_tokens,
        "cachedContentTokenCount": usage.cached_tokens,
        "totalTokenCount": usage.tokens,
    } | tools


@dataclass(frozen=True, slots=True)
class Content:
    """A `Wire`. `array` is the framing without `alt=sse`."""

    array: bool
    answer_kind: str = "application/json; charset=UTF-8"
    told: Usage | None = None

    @property
    def kind(self) -> str:
        """Of a stream."""
        return self.answer_kind if self.array else "text/event-stream"

    def begin(self) -> list[bytes]:
        """Nothing comes before the first words."""
        return []

    def word(self, number: int, *, tells: bool) -> bytes:
        """A chunk."""
        return self._framed(_chunk([{"text": WORD}], None, number + 1, tells=tells), first=number == 0)

    def end(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """The chunk with the finish reason."""
        chunk = _chunk([{"text": ""}], "STOP", words, tells=tells, steps=steps)
        return self._framed(chunk, first=words == 0) + self._close()

    def error(self, words: int) -> bytes:
        """A chunk that is an error."""
        return self._framed(GIVES_UP, first=words == 0) + self._close()

    def whole(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """All in one."""
        return json.dumps(_chunk([{"text": WORD * words}], "STOP", words, tells=tells, steps=steps), indent=2).encode()

    def call(self, *, streamed: bool) -> bytes:
        """A function call."""
        chunk = _chunk([CALL], "STOP", 0, tells=True)
        return self._framed(chunk, first=True) + self._close() if streamed else json.dumps(chunk).encode()

    def _framed(self, chunk: dict[str, Any], *, first: bool) -> bytes:
        if self.array:
            return (b"[" if first else b",\r\n") + json.dumps(chunk, indent=2).encode() + b"\n"
        return b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n"

    def _close(self) -> bytes:
        return b"]" if self.array else b""


def _chunk(
    parts: list[dict[str, Any]], finish: str | None, words: int, *, tells: bool, steps: bool = False
) -> dict[str, Any]:
    candidate = {"content": {"parts": parts, "role": "model"}, "index": 0} | (
        {"finishReason": finish} if finish else {}
    )
    told = {"usageMetadata": report(billed(words), steps=steps)} if tells else {}
    return {"candidates": [candidate], "modelVersion": "m", "responseId": "r"} | told
