"""Reads of an event stream in pieces: what comes in one burst is looked at piece by piece, in whole events.

For streams that may have to be ended between two events. Memory: one read. Fails as the answer it reads from does.
"""

from collections import deque

from gateway.dialects.sse import split_events
from gateway.upstream.transport import Answer


class EventReads:
    """Hands out `answer` in pieces of about `most_bytes`: more only where one event is longer."""

    def __init__(self, answer: Answer, most_bytes: int) -> None:
        self._answer = answer
        self._most_bytes = most_bytes
        self._pieces: deque[bytes] = deque()

    async def read(self) -> bytes:
        """See `Answer.read`."""
        if not self._pieces:
            data = await self._answer.read()
            if len(data) <= self._most_bytes:
                return data
            self._cut(data)
        return self._pieces.popleft()

    def _cut(self, data: bytes) -> None:
        piece: list[bytes] = []
        length = 0
        for event in split_events(data):
            if piece and length + len(event) > self._most_bytes:
                self._pieces.append(b"".join(piece))
                piece, length = [], 0
            piece.append(event)
            length += len(event)
        self._pieces.append(b"".join(piece))
