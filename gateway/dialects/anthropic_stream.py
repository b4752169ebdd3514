"""Watches one streamed Messages answer in passing: its usage, its end, its text.

A read that ends at an event boundary passes as the object that came in; half an event is held back until it is whole.
Only the events that tell of usage, an error or the end are decoded, each
once. Never raises; holds no more than one event and one batch of text.
"""

from typing import Any

import msgspec

from gateway.dialects.anthropic_text import Blocks
from gateway.dialects.anthropic_usage import usage_of
from gateway.dialects.json_body import UNREADABLE
from gateway.dialects.kept_text import KeptText
from gateway.dialects.sse import EVENT_ENDS, EventCutter, event_data, split_events
from gateway.dialects.token_count import count
from gateway.domain.usage import Usage


class _Message(msgspec.Struct, gc=False):
    usage: Any = None


class _Event(msgspec.Struct, gc=False):
    type: Any = None
    usage: Any = None
    message: _Message | None = None


_event = msgspec.json.Decoder(_Event)


class AnthropicStream:
    """A `StreamReader`. The first event tells the input, the last but one all of it; what the first told and the last
    doesn't still holds.
    """  # noqa: D205

    __slots__ = ("_began", "_blocks", "_cutter", "_report", "_text", "error_seen", "finished", "told", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.told: Usage | None = None
        self.finished = False
        self.error_seen = False
        self._began = False
        self._report: dict[str, Any] = {}
        self._cutter = EventCutter()
        self._blocks = Blocks()
        self._text = KeptText(self._blocks.read)

    @property
    def broken_off(self) -> bool:
        """Something was said, and neither the usage nor an error nor `message_stop` came after it."""
        return self._began and not self.finished and self.usage is None and not self.error_seen

    @property
    def answered(self) -> bool:
        """The input was told, which is billed from then on, or some text came."""
        return self.told is not None or self.usage is not None or self._text.text_bytes() > 0

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
        """The upstream is done. Some send no `message_stop`: the final usage is then taken for one."""
        if rest := self._cutter.rest():
            self._take(rest)
        self.finished = self.finished or self.usage is not None
        return rest

    def text(self) -> str:
        """The answer's text so far; "" once the usage is known."""
        return self._text.text()

    def text_bytes(self) -> int:
        """The length of `text`."""
        return self._text.text_bytes()

    def stop(self, usage: Usage) -> bytes:
        """The end of every open block, `message_delta` with stop reason `max_tokens` and the usage, `message_stop`."""
        self._text.digest()
        ends = [_told({"type": "content_block_stop", "index": index}) for index in sorted(self._blocks.open)]
        report = {
            "input_tokens": usage.input_tokens - usage.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.cached_tokens,
            "output_tokens": usage.output_tokens,
        }
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        ends.append(_told({"type": "message_delta", "delta": delta, "usage": report}))
        ends.append(_told({"type": "message_stop"}))
        return b"".join(ends)

    def close_array(self, element: bytes) -> bytes:
        """It is no array."""
        del element
        return b""

    def _take(self, events: bytes) -> None:
        self._began = True
        if self.usage is None:
            self._text.add(events)
        if _is_notable(events):
            for event in split_events(events):
                if _is_notable(event):
                    self._read(event)

    def _read(self, event: bytes) -> None:
        try:
            told = _event.decode(event_data(event))
        except UNREADABLE:
            return
        if told.type == "message_start" and told.message is not None:
            self._learn(told.message.usage)
            self.told = usage_of(self._report)
        elif told.type == "message_delta":
            self._learn(told.usage)
            if _tells_output(told.usage) or not self._text.text_bytes():
                self.usage = usage_of(self._report) if isinstance(told.usage, dict) else self.usage
            if self.usage is not None:
                self._text.drop()
        elif told.type == "message_stop":
            self.finished = True
        elif told.type == "error":
            self.error_seen = True

    def _learn(self, report: Any) -> None:
        if isinstance(report, dict):
            self._report.update({name: value for name, value in report.items() if value is not None})


def _tells_output(report: Any) -> bool:
    """Whether a last report counts the text: one without output, or with 0, knows of the input alone."""
    return isinstance(report, dict) and bool(count(report.get("output_tokens")) or report.get("iterations"))


def _told(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))


def _is_notable(events: bytes) -> bool:
    """Whether these events may tell of usage, an error or the end; inside a text the quotes would be escaped."""
    # `find`, not `in`: bytes take `in` for a number first, at twice the cost.
    return events.find(b'"usage"') >= 0 or events.find(b'"message_stop"') >= 0 or events.find(b'"error"') >= 0
