"""A raw TCP (or TLS) peer that plays a script per connection, so that a test can say exactly which bytes come when.

Owns its listening socket and the tasks of its scripts; leaving the context ends them all. A script that meets a closed
connection just ends: the client's behaviour is what a test asserts.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came over the wire; `body` has its transfer coding undone."""

    line: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """All values of a field, by its lower-case name."""
        return [value for key, value in self.fields if key.lower() == name]


class Visit:
    """One connection of the client, from the peer's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self) -> Received:
        """Read one whole request."""
        head = await self.head()
        body = b""
        if head.values(b"content-length"):
            body = await self.reader.readexactly(int(head.values(b"content-length")[0]))
        elif head.values(b"transfer-encoding"):
            body = await self._chunks()
        return Received(head.line, head.fields, body)

    async def head(self) -> Received:
        """Read a request's head alone."""
        line, *lines = (await self.reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        pairs = [text.split(b": ", 1) for text in lines]
        return Received(line, [(name, value) for name, value in pairs], b"")

    async def say(self, *pieces: bytes) -> None:
        """Send bytes, each piece on its own as far as TCP allows."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def client_gone(self) -> None:
        """Wait until the client closes; what it still sends is thrown away."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def _chunks(self) -> bytes:
        pieces = []
        while size := int(await self.reader.readline(), 16):
            pieces.append(await self.reader.readexactly(size))
            await self.reader.readline()
        await self.reader.readline()
        return b"".join(pieces)


Script = Callable[[Visit], Awaitable[None]]


@dataclass(slots=True)
class Peer:
    """Where the peer listens and what it has seen. `gone` counts scripts that have ended."""

    port: int = 0
    connections: int = 0
    gone: int = 0
    requests: list[Received] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    """For scripts that wait for the test."""


@contextlib.asynccontextmanager
async def odd_peer(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """Listen on loopback and run `script` on every connection; the connection closes when the script ends."""
    peer = Peer()
    visits: set[asyncio.Task[None]] = set()

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.connections += 1
        task = asyncio.current_task()
        if task is not None:
            visits.add(task)
            task.add_done_callback(visits.discard)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await script(Visit(reader, writer))
        finally:
            peer.gone += 1
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    server = await asyncio.start_server(visit, "127.0.0.1", 0, ssl=tls)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for task in tuple(visits):
            task.cancel()
        if visits:
            await asyncio.wait(visits, timeout=5)
        await server.wait_closed()


def answers(*replies: bytes) -> Script:
    """A script: read a request, send the next reply; at the end of the replies, close."""

    async def script(visit: Visit) -> None:
        for reply in replies:
            await visit.request()
            await visit.say(reply)

    return script


def always(reply: bytes) -> Script:
    """A script that gives the same reply to every request."""

    async def script(visit: Visit) -> None:
        while True:
            await visit.request()
            await visit.say(reply)

    return script


def both_at_once(reply: bytes, then: Script) -> Script:
    """A script for two connections: both first replies in one turn of the loop, after which each goes on as `then`."""
    arrived: list[Visit] = []

    async def script(visit: Visit) -> None:
        await visit.request()
        arrived.append(visit)
        if len(arrived) == 2:
            for each in arrived:
                each.writer.write(reply)
        await then(visit)

    return script
