"""Reads of an event stream in pieces: what comes in one burst is looked at piece by piece, in whole events, or in whole
elements where the stream is one JSON array.

For streams that may have to be ended between two events. Memory: one read. Fails as the answer it reads from does.
"""  # noqa: D205

from collections import deque
from collections.abc import Iterable

from gateway.dialects.json_array import ArrayCutter
from gateway.dialects.sse import split_events
from gateway.upstream.transport import Answer


class EventReads:
    """Hands out `answer` in pieces of about `most_bytes`: more only where one event is longer."""

    def __init__(self, answer: Answer, most_bytes: int, *, array: bool = False) -> None:
        self._answer = answer
        self._most_bytes = most_bytes
        self._pieces: deque[bytes] = deque()
        self._array = ArrayCutter() if array else None

    async def read(self) -> bytes:
        """See `Answer.read`."""
        if not self._pieces:
            data = await self._answer.read()
            # Of an array every byte has to be seen: where an element ends depends on all before it.
            events = split_events(data) if self._array is None else self._array.split(data)
            if len(data) <= self._most_bytes:
                return data
            self._cut(events)
        return self._pieces.popleft()

    def _cut(self, events: Iterable[bytes]) -> None:
        piece: list[bytes] = []
        length = 0
        for event in events:
            if piece and length + len(event) > self._most_bytes:
                self._pieces.append(b"".join(piece))
                piece, length = [], 0
            piece.append(event)
            length += len(event)
        self._pieces.append(b"".join(piece))
