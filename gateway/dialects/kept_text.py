"""Keeps a stream's bytes at next to no cost, and has them read a batch at a time.

What is held of a stream is one batch of bytes and its text, which is bounded. Never raises as long as `read` does not.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

import msgspec

from gateway.dialects.json_body import UNREADABLE
from gateway.dialects.sse import event_data, split_events

Payload = TypeVar("Payload")

BATCH_BYTES = 32 << 10
"""Bytes of stream kept before they are read."""

MAX_TEXT_CHARS = 4 << 20
"""The longest text kept: above what any model writes in one answer."""

_DONE = b"[DONE]"


class KeptText:
    """The text of one stream. `read` takes complete events and returns the texts in them, each with its lane: a number
    by which parts of the text are told apart. `latest` are some of the events that were read last.
    """  # noqa: D205

    __slots__ = ("_bytes", "_chars", "_dropped", "_kept_bytes", "_raw", "_read", "_texts", "latest")

    def __init__(self, read: Callable[[bytes], Iterable[tuple[int, str]]]) -> None:
        self._read = read
        self._raw: list[bytes] = []
        self._kept_bytes = 0
        self._texts: list[tuple[int, str]] = []
        self._chars = self._bytes = 0
        self._dropped = False
        self.latest = b""

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
        self.latest = self._raw[-1]
        self._raw.clear()
        self._kept_bytes = 0
        for lane, pieces in groupby(self._read(events), key=itemgetter(0)):
            text = "".join([piece for _, piece in pieces])
            if text and self._chars < MAX_TEXT_CHARS and not self._dropped:
                self._texts.append((lane, text))
                self._chars += len(text)
                self._bytes += len(text.encode(errors="replace"))

    def drop(self) -> None:
        """Forget the text, and what more comes of it: the upstream told its usage."""
        self._dropped = True
        self._texts.clear()
        self._chars = self._bytes = 0

    def text(self) -> str:
        """The text so far, as it came."""
        self.digest()
        return "".join([text for _, text in self._texts])

    def lanes(self) -> dict[int, str]:
        """The text so far, lane by lane, in the order in which they began."""
        self.digest()
        texts: dict[int, list[str]] = {}
        for lane, text in self._texts:
            texts.setdefault(lane, []).append(text)
        return {lane: "".join(pieces) for lane, pieces in texts.items()}

    def text_bytes(self) -> int:
        """The length of `text` in UTF-8."""
        self.digest()
        return self._bytes


def payloads(
    events: bytes, batch: "msgspec.json.Decoder[list[Payload]]", one: Callable[[bytes], Payload | None]
) -> list[Payload]:
    """What the events carry: decoded at once, as one JSON array, where they are as nearly all are; else `one` by one.

    `one` may return None, or raise one of UNREADABLE, for what it can't read, which is then left out.
    """
    plain = events.replace(b"\r\n", b"\n")
    lines = [line[5:] for line in plain.split(b"\n") if line.startswith(b"data:")]
    if lines and lines[-1].strip() == _DONE:
        del lines[-1]
    if not lines or b"\r" in plain:
        return _one_by_one(events, one)
    try:
        return batch.decode(b"[" + b",".join(lines) + b"]")
    except UNREADABLE:
        return _one_by_one(events, one)


def _one_by_one(events: bytes, one: Callable[[bytes], Payload | None]) -> list[Payload]:
    found = []
    for event in split_events(events):
        try:
            payload = one(event_data(event))
        except UNREADABLE:
            continue
        if payload is not None:
            found.append(payload)
    return found
