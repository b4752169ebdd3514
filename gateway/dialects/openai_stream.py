"""Watches one streamed chat completion in passing: its usage, its end, its text.

A read that ends at an event boundary and tells nothing new passes as the object that came in. An event that has not
ended is held back until it has: no client can act on half an event. With `strip_usage` the usage chunk, which the
gateway alone asked for, is taken out. Never raises; holds no more than one event and one batch of text.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.dialects.json_body import UNREADABLE
from gateway.dialects.kept_text import KeptText
from gateway.dialects.openai_ending import ending
from gateway.dialects.openai_text import Choices
from gateway.dialects.openai_usage import usage_of
from gateway.dialects.sse import EVENT_ENDS, EventCutter, event_data, event_start, split_events
from gateway.domain.usage import Usage

_DONE = b"[DONE]"
_USAGE = b'"usage"'
_NULL = (b":null", b": null")
"""Compact, as OpenAI writes it, or as Python's json does."""
_TAIL_BYTES = 64
_NO_CHOICES = re.compile(rb"\s*(?:\[\s*\]|null)?\s*")
_FINISH_REASON = re.compile(rb'"finish_reason"\s*:\s*"')


class _Chunk(msgspec.Struct, gc=False):
    usage: Any = None
    x_groq: Any = None
    error: Any = None
    choices: msgspec.Raw = msgspec.Raw()


_chunk = msgspec.json.Decoder(_Chunk)


class OpenAIStream:
    """A `StreamReader` for chat completions.

    `error_seen` says that the upstream told of an error inside the stream; `mid_event` that the bytes sent on so far
    end inside an event, where nothing of our own may be put.
    """

    __slots__ = (
        "_choices",
        "_comment",
        "_cutter",
        "_final",
        "_noted",
        "_strip",
        "_text",
        "error_seen",
        "finished",
        "told",
        "usage",
    )

    def __init__(self, *, strip_usage: bool, usage_comment: Callable[[Usage], bytes]) -> None:
        self.usage: Usage | None = None
        self.told: Usage | None = None
        self.finished = False
        self.error_seen = False
        self._final = False
        self._noted = b""
        self._strip = strip_usage
        self._comment = usage_comment
        self._cutter = EventCutter()
        self._choices = Choices()
        self._text = KeptText(self._choices.read)

    @property
    def broken_off(self) -> bool:
        """A choice was begun and not finished, and neither usage, nor an error, nor `[DONE]` came after it."""
        if self.finished or self.usage is not None or self.error_seen:
            return False
        self._text.digest()
        return bool(self._choices.open)

    @property
    def answered(self) -> bool:
        """Usage was told, or some text."""
        return self.usage is not None or self._text.text_bytes() > 0

    @property
    def mid_event(self) -> bool:
        """A part was sent on of an event that is longer than is held."""
        return self._cutter.passing

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they arrived; return those to send on now."""
        if not self._cutter.held and data.endswith(EVENT_ENDS) and _first_notable(data) < 0:
            if self.usage is None:
                self._text.add(data)
            return data
        events = self._cutter.feed(data)
        return self._take(events) if events else b""

    def end(self) -> bytes:
        """The upstream is done: return what was held back.

        Some upstreams send no terminator: from now on `finished` takes final usage, or a finish reason, for one.
        """
        rest = self._cutter.rest()
        kept = self._take(rest) if rest else b""
        if not self.finished:
            self.finished = self._final or self._all_finished()
        return kept

    def text(self) -> str:
        """The answer's text so far, one choice after the other; "" once the usage is known."""
        return "\n".join(self._text.lanes().values())

    def text_bytes(self) -> int:
        """The length of `text` without the line ends between choices; 0 once the usage is known."""
        return self._text.text_bytes()

    def stop(self, usage: Usage) -> bytes:
        """Finish reason `length` for every choice that is open, the usage as a chunk or a comment, and `[DONE]`."""
        self._text.digest()
        choices = frozenset(self._choices.open if self._choices.seen else {0})
        events = self._noted or self._text.latest
        if self._strip:
            return self._comment(usage) + ending(events, choices, None)
        return ending(events, choices, usage)

    def close_array(self, element: bytes) -> bytes:
        """It is no array."""
        del element
        return b""

    def _all_finished(self) -> bool:
        self._text.digest()
        return self._choices.seen and not self._choices.open

    def _take(self, events: bytes) -> bytes:
        if self.usage is None:
            self._text.add(events)
        first = _first_notable(events)
        if first < 0:
            return events
        done = events.find(_DONE, 0, first)
        # Of a burst, nearly all comes before what is notable: it isn't cut into events.
        start = event_start(events, first if done < 0 else done)
        kept = [self._read(event) if _first_notable(event) >= 0 else event for event in split_events(events[start:])]
        return b"".join([events[:start], *kept]) if self._strip else events

    def _read(self, event: bytes) -> bytes:
        """Learn from one event; return what is to be sent on in its place."""
        data = event_data(event)
        if data.strip() == _DONE:
            self.finished = True
            return event
        try:
            chunk = _chunk.decode(data)
        except UNREADABLE:
            return event
        self.error_seen = self.error_seen or bool(chunk.error)
        report = chunk.usage
        if not isinstance(report, dict):
            # Groq tells it there, asked or not.
            report = chunk.x_groq.get("usage") if isinstance(chunk.x_groq, dict) else None
        if not isinstance(report, dict):
            return event
        choices = bytes(chunk.choices)
        alone = _NO_CHOICES.fullmatch(choices) is not None
        usage = usage_of(report)
        if usage is not None:
            self._noted = event
            self.usage = usage
            self._final = alone or _FINISH_REASON.search(choices) is not None
            self._text.drop()
        if not alone:
            return event
        return self._comment(usage) if usage is not None else b""


def _first_notable(events: bytes) -> int:
    """Where something begins that may tell of usage, an error or the end, -1 where nothing does."""
    usage = events.find(_USAGE)
    while usage >= 0 and events.startswith(_NULL, usage + len(_USAGE)):  # it stands in every chunk of many
        usage = events.find(_USAGE, usage + len(_USAGE))
    error, done = events.find(b'"error"'), events.find(_DONE, -_TAIL_BYTES)
    if usage < 0 and error < 0 and done < 0:
        return -1
    return min(at for at in (usage, error, done) if at >= 0)
