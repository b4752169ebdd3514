"""The upstream of the matrix: it acts each cell out on the wire, waits where the test tells it to, and keeps the true
count. A request names its cell in `x-cell`.
"""  # noqa: D205

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.support.matrix.endings import Ending, Then
from tests.support.matrix.wire import Wire
from tests.support.odd_peer import Visit, odd_peer
from tests.support.openai_wire import framed, http

STATUSES = {400: "400 Bad Request", 500: "500 Internal Server Error"}


@dataclass(slots=True)
class Play:
    """One cell. Where the client leaves, the upstream waits for `go`, or to be let go itself if the gateway cancels.

    `words` are those that it has put on the wire; `asked` says that the request came, `done` that it has played.
    """

    wire: Wire
    ending: Ending
    cancels: bool
    words: int = 0
    requests: int = 0
    let_go: bool = False
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def act(self, visit: Visit) -> bool:
        """Answer one request; whether the connection goes on."""
        self.requests += 1
        self.asked.set()
        ending = self.ending
        if ending.then is Then.SHUT:
            return False
        if ending.status != 200:
            await visit.say(http(b'{"error": {"message": "no", "type": "x"}}', status=STATUSES[ending.status]))
        elif ending.steps and self.requests == 1:
            await self._call(visit)
        elif ending.streamed:
            return await self._stream(visit)
        else:
            return await self._whole(visit)
        return True

    async def _call(self, visit: Visit) -> None:
        said = self.wire.call(streamed=self.ending.streamed)
        if self.ending.streamed:
            await visit.say(self._head(), framed(said), framed(b""))
        else:
            await visit.say(http(said, kind=self.wire.answer_kind))

    async def _whole(self, visit: Visit) -> bool:
        if not await self._goes_on(visit):
            return False
        self.words = self.ending.words
        body = self.wire.whole(self.words, tells=self.ending.tells, steps=self.ending.steps)
        await visit.say(http(body, kind=self.wire.answer_kind))
        return True

    async def _stream(self, visit: Visit) -> bool:
        wire, ending = self.wire, self.ending
        await visit.say(self._head(), *map(framed, wire.begin()))
        for _ in range(ending.words):
            await visit.say(framed(wire.word(self.words, tells=ending.tells)))
            self.words += 1
        if not await self._goes_on(visit) or ending.then is Then.CUT:
            return False
        if ending.then is Then.CUT_INSIDE:
            event = wire.word(self.words, tells=ending.tells)
            await visit.say(framed(event[: len(event) // 2]))
            return False
        last = wire.error(self.words)
        if ending.then is Then.END:
            last = wire.end(self.words, tells=ending.tells, steps=ending.steps)
        await visit.say(framed(last), framed(b""))
        return True

    async def _goes_on(self, visit: Visit) -> bool:
        if not self.ending.leaves:
            return True
        if self.cancels:
            await visit.client_gone()
            self.let_go = True
            return False
        await self.go.wait()
        return True

    def _head(self) -> bytes:
        return f"HTTP/1.1 200 OK\r\ncontent-type: {self.wire.kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()


@dataclass(slots=True)
class Stage:
    """The plays by cell."""

    port: int = 0
    plays: dict[str, Play] = field(default_factory=dict)

    async def serve(self, visit: Visit) -> None:
        """One connection, request by request."""
        goes_on = True
        while goes_on:
            request = await visit.request()
            play = self.plays[request.values(b"x-cell")[0].decode()]
            try:
                goes_on = await play.act(visit)
            finally:
                play.done.set()


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Listen on loopback."""
    playing = Stage()
    async with odd_peer(playing.serve) as peer:
        playing.port = peer.port
        yield playing
