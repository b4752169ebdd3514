"""Watches one streamed Gemini answer in passing: its usage, its end, its text.

A read that ends at an event boundary passes as the object that came in; half an event, or half an element of an array,
is held back until it is whole. Each chunk tells the usage so far, so none is looked into as it comes: a
batch is decoded at once, and the last report counts. Never raises; holds no more than one chunk and one batch.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.dialects.gemini_text import as_list, text_of
from gateway.dialects.gemini_usage import spoken_of, usage_of
from gateway.dialects.json_array import MAX_ELEMENT_BYTES, ArrayCutter
from gateway.dialects.kept_text import KeptText, payloads
from gateway.dialects.sse import EVENT_ENDS, EventCutter
from gateway.domain.usage import Usage


class _Chunk(msgspec.Struct, gc=False):
    candidates: Any = None
    usageMetadata: Any = None  # noqa: N815  # the names on the wire
    promptFeedback: Any = None  # noqa: N815  # the name on the wire
    modelVersion: Any = None  # noqa: N815  # the name on the wire
    responseId: Any = None  # noqa: N815  # the name on the wire
    error: Any = None


_chunk = msgspec.json.Decoder(_Chunk)
_batch = msgspec.json.Decoder(list[_Chunk])


class GeminiStream:
    """A `StreamReader` for both framings: events (`alt=sse`), or one JSON array. The first byte tells which it is."""

    __slots__ = ("_array", "_events", "_last", "_open", "_report", "_seen", "_text", "error_seen", "finished")

    def __init__(self) -> None:
        self.finished = False
        self.error_seen = False
        self._array: ArrayCutter | None = None
        self._events: EventCutter | None = None
        self._text = KeptText(self._read)
        self._report: dict[str, Any] = {}
        self._last = _Chunk()
        self._open: set[int] = set()
        self._seen = False

    @property
    def usage(self) -> Usage | None:
        """As the last report told it; None where that one does not count the text that came before it."""
        self._text.digest()
        if self._open and not spoken_of(self._report) and self._text.text_bytes():
            return None
        return usage_of(self._report)

    @property
    def told(self) -> Usage | None:
        """The input, as soon as any report was seen."""
        self._text.digest()
        return usage_of(self._report)

    @property
    def broken_off(self) -> bool:
        """A candidate was begun and has no finish reason, or an array was not closed, and no error told why."""
        return self._seen and not self.finished and not self.error_seen

    @property
    def answered(self) -> bool:
        """A report or a candidate came."""
        return self.told is not None or self._seen

    @property
    def mid_event(self) -> bool:
        """A part was sent on of an event or an element that is longer than is held, or the array has ended."""
        if self._array is not None:
            return self._array.joint is None
        return self._events is not None and self._events.passing

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they arrived; whole events and elements go on."""
        if self._events is None and self._array is None:
            self._begin(data)
        if self._array is not None:
            elements, data = self._array.feed(data)
            if elements:
                self._text.add(elements)
        elif self._events is not None:
            if self._events.held or not data.endswith(EVENT_ENDS):
                data = self._events.feed(data)
            if data:
                self._text.add(data)
        return data

    def end(self) -> bytes:
        """The upstream is done. There is no terminator: every candidate's finish reason is taken for one."""
        rest = b"" if self._array is None else self._array.rest()
        if self._events is not None and (rest := self._events.rest()):
            self._text.add(rest)
        self._text.digest()
        closed = self._array is None or self._array.ended
        self.finished = self._seen and not self._open and not self.error_seen and closed
        return rest

    def text(self) -> str:
        """The answer's text so far."""
        return self._text.text()

    def text_bytes(self) -> int:
        """The length of `text`."""
        return self._text.text_bytes()

    def stop(self, usage: Usage) -> bytes:
        """A last chunk: finish reason `MAX_TOKENS` for every open candidate, and the usage."""
        self._text.digest()
        empty = {"parts": [{"text": ""}], "role": "model"}
        candidates = [
            {"content": empty, "finishReason": "MAX_TOKENS", "index": index} for index in sorted(self._open or {0})
        ]
        report = {
            "promptTokenCount": usage.input_tokens,
            "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
            "totalTokenCount": usage.tokens,
            "thoughtsTokenCount": usage.reasoning_tokens,
            "cachedContentTokenCount": usage.cached_tokens,
        }
        like = {"modelVersion": self._last.modelVersion, "responseId": self._last.responseId}
        chunk = {"candidates": candidates, "usageMetadata": report, **{k: v for k, v in like.items() if v}}
        if self._array is not None:
            return self.close_array(msgspec.json.encode(chunk))
        return b"data: " + msgspec.json.encode(chunk) + b"\r\n\r\n"

    def close_array(self, element: bytes) -> bytes:
        """The element behind the last one, and the end of the array; all of it where nothing came."""
        if self._events is not None:
            return b""
        joint = b"[" if self._array is None else self._array.joint
        return b"" if joint is None else joint + element + b"]"

    def _begin(self, data: bytes) -> None:
        first = data.lstrip()[:1]
        if first == b"[":
            self._array = ArrayCutter()
        elif first:
            self._events = EventCutter(MAX_ELEMENT_BYTES)

    def _read(self, events: bytes) -> Iterator[tuple[int, str]]:
        for chunk in payloads(events, _batch, _chunk.decode):
            self._last = chunk
            self.error_seen = self.error_seen or bool(chunk.error)
            if usage_of(chunk.usageMetadata) is not None:
                self._report = chunk.usageMetadata
            if isinstance(chunk.promptFeedback, dict) and chunk.promptFeedback.get("blockReason"):
                self._seen = True
            for candidate in as_list(chunk.candidates):
                self._note(candidate)
                yield 0, text_of(candidate)

    def _note(self, candidate: Any) -> None:
        if not isinstance(candidate, dict):
            return
        self._seen = True
        index = candidate.get("index")
        index = index if isinstance(index, int) else 0
        if candidate.get("finishReason"):
            self._open.discard(index)
        else:
            self._open.add(index)
