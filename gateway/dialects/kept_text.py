"""Keeps a stream's bytes at next to no cost, and has them read a batch at a time.

What is held of a stream is one batch of bytes and its text, which is bounded. Never raises as long as `read` does not.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from gateway.dialects.json_body import UNREADABLE
from gateway.dialects.sse import event_data, split_events

Payload = TypeVar("Payload")

BATCH_BYTES = 32 << 10
"""Bytes of stream kept before they are read."""

MAX_TEXT_CHARS = 4 << 20
"""The longest text kept: above what any model writes in one answer."""


class KeptText:
    """The text of one stream. `read` takes complete events and returns the texts in them."""

    __slots__ = ("_bytes", "_chars", "_kept_bytes", "_raw", "_read", "_texts")

    def __init__(self, read: Callable[[bytes], Iterable[str]]) -> None:
        self._read = read
        self._raw: list[bytes] = []
        self._kept_bytes = 0
        self._texts: list[str] = []
        self._chars = self._bytes = 0

    def add(self, events: bytes) -> None:
        """Keep complete events as they came."""
        self._raw.append(events)
        self._kept_bytes += len(events)
        if self._kept_bytes > BATCH_BYTES:
            self.digest()

    def digest(self) -> None:
        """Have everything read that was kept."""
        if not self._raw:
            return
        events = b"".join(self._raw)
        self._raw.clear()
        self._kept_bytes = 0
        text = "".join(self._read(events))
        if self._chars < MAX_TEXT_CHARS:
            self._texts.append(text)
            self._chars += len(text)
            self._bytes += len(text.encode(errors="replace"))

    def drop(self) -> None:
        """Forget the text: the upstream told its usage."""
        self._texts.clear()
        self._chars = self._bytes = 0

    def text(self) -> str:
        """The text so far."""
        self.digest()
        self._texts = ["".join(self._texts)]
        return self._texts[0]

    def text_bytes(self) -> int:
        """The length of `text` in UTF-8."""
        self.digest()
        return self._bytes


def payloads(
    events: bytes, batch: "msgspec.json.Decoder[list[Payload]]", one: "msgspec.json.Decoder[Payload]"
) -> list[Payload]:
    """What the events carry: decoded at once, as one JSON array, where they are as nearly all are; else one by one."""
    plain = events.replace(b"\r\n", b"\n")
    lines = [line[5:] for line in plain.split(b"\n") if line.startswith(b"data:")]
    if not lines or b"\r" in plain:
        return _one_by_one(events, one)
    try:
        return batch.decode(b"[" + b",".join(lines) + b"]")
    except UNREADABLE:
        return _one_by_one(events, one)


def _one_by_one(events: bytes, one: "msgspec.json.Decoder[Payload]") -> list[Payload]:
    found = []
    for event in split_events(events):
        try:
            found.append(one.decode(event_data(event)))
        except UNREADABLE:
            continue
    return found
