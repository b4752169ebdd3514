"""A TCP link whose bytes a test can hold back, cut or half-close: what lies between two machines and goes wrong.

Listens on loopback and passes every connection on to one address. It never changes bytes, and it ends all that it
opened when its context is left.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[], Awaitable[Streams]]


@dataclass(eq=False, slots=True)
class Pair:
    """One connection: the side that came to us, and the side that we opened."""

    near: Streams
    far: Streams


@dataclass(eq=False, slots=True)
class Link:
    """A link on `port`. `dial` opens its far side."""

    dial: Dial
    port: int = 0
    _pairs: set[Pair] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)

    def cut(self, rng: random.Random, share: float = 1.0) -> None:
        """Reset a share of the connections, both sides at once."""
        for pair in list(self._pairs):
            if rng.random() < share:
                for _, writer in (pair.near, pair.far):
                    _reset(writer)

    def half_close(self, rng: random.Random, share: float = 1.0) -> None:
        """End one direction of a share of the connections, as a peer does that has no more to say."""
        for pair in list(self._pairs):
            if rng.random() < share:
                _, writer = rng.choice((pair.near, pair.far))
                with contextlib.suppress(OSError):
                    if writer.can_write_eof() and not writer.is_closing():
                        writer.write_eof()

    @contextlib.asynccontextmanager
    async def stalled(self) -> AsyncIterator[None]:
        """Inside, no byte passes and no connection ends: what a lost route looks like."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    async def visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until both directions have ended."""
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            await self._flowing.wait()
            far = await self.dial()
        except (OSError, asyncio.CancelledError):
            return _reset(writer)
        pair = Pair((reader, writer), far)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(reader, far[1]), self._pump(far[0], writer))
        except (OSError, RuntimeError, asyncio.CancelledError):
            # RuntimeError: a half-closed side was to be written to.
            for end in (writer, far[1]):
                _reset(end)
        finally:
            self._pairs.discard(pair)
            for end in (writer, far[1]):
                end.close()

    async def stop(self) -> None:
        """End every connection."""
        self._flowing.set()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        await self._flowing.wait()
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()


@contextlib.asynccontextmanager
async def link(dial: Dial) -> AsyncIterator[Link]:
    """Listen until the end."""
    here = Link(dial)
    here._flowing.set()
    server = await asyncio.start_server(here.visit, "127.0.0.1", 0, backlog=2048)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
        await here.stop()
        await server.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, where the socket is still there to ask for it."""
    raw = writer.get_extra_info("socket")
    if raw is not None and not writer.is_closing():
        with contextlib.suppress(OSError):
            if raw.family == socket.AF_INET:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
