"""Collects the text of a stream of typed events, for the tokenizer, where the upstream reports no usage.

Events are kept as they came, at next to no cost, and turned into text a batch at a time: what is held is one batch of
bytes and its text, which is bounded. Never raises: an event that can't be read adds no text.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import msgspec

from gateway.dialects.json_body import UNREADABLE
from gateway.dialects.openai_text import BATCH_BYTES, MAX_TEXT_CHARS
from gateway.dialects.sse import event_data, split_events

_DATA = re.compile(rb"^data: ?(\{.*)$", re.MULTILINE)


class _Delta(msgspec.Struct, gc=False):
    type: Any = None
    delta: Any = None


_delta = msgspec.json.Decoder(_Delta)
_batch = msgspec.json.Decoder(list[_Delta])


class DeltaText:
    """The text of one stream: all that its `delta` fields say, sound excepted. `add` takes complete events.

    `latest` are some of the events that were turned into text last.
    """

    __slots__ = ("_bytes", "_chars", "_kept_bytes", "_raw", "_texts", "latest")

    def __init__(self) -> None:
        self._raw: list[bytes] = []
        self._kept_bytes = 0
        self._texts: list[tuple[bool, str]] = []
        self._chars = 0
        self._bytes = 0
        self.latest = b""

    def add(self, events: bytes) -> None:
        """Keep complete events as they came."""
        self._raw.append(events)
        self._kept_bytes += len(events)
        if self._kept_bytes > BATCH_BYTES:
            self._digest()

    def drop(self) -> None:
        """Forget it all: the upstream told its usage."""
        self._raw.clear()
        self._texts.clear()
        self._kept_bytes = self._chars = self._bytes = 0

    def text(self) -> str:
        """The text so far."""
        self._digest()
        return "".join(text for _, text in self._texts)

    def said(self) -> str:
        """The part of it that is the answer's own, without reasoning and calls."""
        self._digest()
        return "".join(text for said, text in self._texts if said)

    def text_bytes(self) -> int:
        """The length of `text` in UTF-8."""
        self._digest()
        return self._bytes

    def _digest(self) -> None:
        if not self._raw:
            return
        events = b"".join(self._raw)
        self.latest = self._raw[-1]
        self._raw.clear()
        self._kept_bytes = 0
        for kind, deltas in groupby(_deltas(events), key=_kind):
            text = "".join(delta.delta for delta in deltas if isinstance(delta.delta, str))
            if kind == _SOUND or not text:
                continue
            self._bytes += len(text.encode("utf-8", "replace"))
            if self._chars < MAX_TEXT_CHARS:
                self._texts.append((kind == _SAID, text))
            self._chars += len(text)


_SOUND, _SAID, _OTHER = 0, 1, 2


def _kind(event: _Delta) -> int:
    kind = str(event.type)
    if kind in {"response.output_text.delta", "response.refusal.delta", "transcript.text.delta"}:
        return _SAID
    return _SOUND if kind.endswith("audio.delta") else _OTHER


def _deltas(events: bytes) -> Iterator[_Delta]:
    """The events that can be read; well-formed ones are decoded at once, as one JSON array."""
    try:
        yield from _batch.decode(b"[" + b",".join(_DATA.findall(events)) + b"]")
    except UNREADABLE:
        for event in split_events(events):
            try:
                yield _delta.decode(event_data(event))
            except UNREADABLE:
                continue
