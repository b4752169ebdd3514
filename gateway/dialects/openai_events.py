"""Watches a stream of typed events in passing: answers of the Responses, images and audio endpoints.

A read that ends at an event boundary passes as the object that came in; half an event is held back until it is whole.
These endpoints tell their usage unasked. Only
events that may tell of usage, an error or the end are decoded. Never raises; holds no more than one event, of which
the last may carry a picture, and one batch of text.
"""

from typing import Any

import msgspec

from gateway.dialects.json_body import UNREADABLE
from gateway.dialects.kept_text import KeptText
from gateway.dialects.openai_delta_text import SAID, Deltas
from gateway.dialects.openai_events_ending import incomplete_response, transcript_end
from gateway.dialects.openai_usage import added, usage_of
from gateway.dialects.sse import EVENT_ENDS, MAX_EVENT_BYTES, EventCutter, event_data, split_events
from gateway.domain.usage import Usage

LONGEST_EVENT_BYTES = 32 << 20
"""The last event repeats the whole answer, pictures of several MB among it, and tells the usage after them."""

ENDS = frozenset(
    {
        "response.completed",
        "response.incomplete",
        "response.failed",
        "response.cancelled",
        "response.done",
        "image_generation.completed",
        "image_edit.completed",
        "transcript.text.done",
        "speech.audio.done",
    }
)
"""Types of the event that ends an answer (OpenAI, "Streaming events"; `cancelled` and `done` are other servers')."""

_FAILURES = frozenset({"error", "response.failed"})
_DONE = b"[DONE]"
_TAIL_BYTES = 64


class _Response(msgspec.Struct, gc=False):
    id: Any = None
    usage: Any = None
    tool_usage: Any = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    type: Any = None
    usage: Any = None
    error: Any = None
    response: _Response | None = None


_event = msgspec.json.Decoder(_Event)


class EventStream:
    """A `StreamReader`. The usage is the sum over the answers in the stream: each counts by what it told last."""

    __slots__ = (
        "_begun",
        "_cutter",
        "_deltas",
        "_ended",
        "_response",
        "_steps",
        "_text",
        "error_seen",
        "finished",
        "told",
        "usage",
    )

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.told: Usage | None = None
        self.finished = False
        self.error_seen = False
        self._begun = False
        self._ended = 0
        self._steps: dict[str | int, Usage] = {}
        self._response = b""
        self._cutter = EventCutter(LONGEST_EVENT_BYTES)
        self._deltas = Deltas()
        self._text = KeptText(self._deltas.read)

    @property
    def broken_off(self) -> bool:
        """Events came, and none of them was an end or an error."""
        return self._begun and not self.finished and not self.error_seen

    @property
    def answered(self) -> bool:
        """Usage was told, or text, sound or a picture came."""
        return self.usage is not None or self._text.text_bytes() > 0 or self._deltas.heard_or_drawn

    @property
    def mid_event(self) -> bool:
        """A part was sent on of an event that is longer than is held."""
        return self._cutter.passing

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they arrived; whole events go on."""
        events = data if not self._cutter.held and data.endswith(EVENT_ENDS) else self._cutter.feed(data)
        if events:
            self._take(events)
        return events

    def end(self) -> bytes:
        """The upstream is done: return what was held back. An end that tells no usage was not looked into until now."""
        rest = self._cutter.rest()
        if rest:
            self._take(rest)
        if not self.finished and not self.error_seen and self.usage is None:
            self._text.digest()
            self.finished = self._deltas.latest_type in ENDS
        return rest

    def text(self) -> str:
        """The answer's text so far; "" once the usage is known."""
        return self._text.text()

    def text_bytes(self) -> int:
        """The length of `text`; 0 once the usage is known."""
        return self._text.text_bytes()

    def stop(self, usage: Usage) -> bytes:
        """End a response as one that ran into `max_output_tokens`, or a transcript with what was heard so far.

        Nothing for sound and pictures: half of one has no valid end.
        """
        said, latest = self._text.lanes().get(SAID, ""), self._text.latest
        if self._response:
            return incomplete_response(self._response, latest, said, usage)
        return transcript_end(said, usage) if b'"transcript.text.delta"' in latest else b""

    def close_array(self, element: bytes) -> bytes:
        """It is no array."""
        del element
        return b""

    def _take(self, events: bytes) -> None:
        self._begun = True
        if self.usage is None:
            self._text.add(events)
        if _is_notable(events):
            for event in split_events(events):
                if _is_notable(event):
                    self._read(event)

    def _read(self, event: bytes) -> None:
        data = event_data(event)
        if data.strip() == _DONE:
            self.finished = True
            return
        try:
            told = _event.decode(data)
        except UNREADABLE:
            return
        response = told.response or _Response()
        if told.response is not None and len(data) <= MAX_EVENT_BYTES:
            self._response = data
        kind = told.type if isinstance(told.type, str) else ""
        if kind in _FAILURES or told.error or response.error:
            self.error_seen = True
        usage = usage_with_tools(response.usage, response.tool_usage) or usage_of(told.usage)
        if usage is not None:
            step = response.id if isinstance(response.id, str) else self._ended
            self._steps[step] = usage
            self.usage = None
            for each in self._steps.values():
                self.usage = added(self.usage, each)
            self._text.drop()
        if kind in ENDS:
            self.finished = True
            self._ended += 1


def usage_with_tools(report: Any, tool_report: Any) -> Usage | None:
    """The usage of a response and of the pictures that its tools made, which OpenAI tells and bills apart."""
    tools = usage_of(tool_report.get("image_gen")) if isinstance(tool_report, dict) else None
    return added(usage_of(report), tools)


def _is_notable(events: bytes) -> bool:
    """Whether these events may tell of usage, an error or the end. Most ends tell their usage, if only as null."""
    # `find`, not `in`: bytes take `in` for a number first, at twice the cost.
    return (
        events.find(b'"usage"') >= 0
        or events.find(b'"error"') >= 0
        or events.find(_DONE, -_TAIL_BYTES) >= 0
        or events.find(b'"transcript.text.done"') >= 0
    )
