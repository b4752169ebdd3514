"""The answer of the lean transport: body bytes that have arrived but were not read yet, and how the body ended.

Filled by its connection, emptied by its one reader. What arrived before a peer broke off is handed out before the
Fault is raised. No task, and no future while bytes are at hand.
"""

import asyncio
from typing import Protocol

import msgspec

from gateway.domain.faults import UPSTREAM_BROKEN, Fault
from gateway.upstream.transport import RawHeaders

HIGH_WATER_BYTES = 131_072
"""Unread bytes at which the connection stops reading from its socket. One socket read (256 KiB) may come on top."""


class Source(Protocol):
    """What an answer asks of the connection it comes from."""

    def resume(self) -> None:
        """Read from the socket again, if reading was paused."""
        ...

    def drop(self) -> None:
        """Close at once and never reuse."""
        ...


class LeanAnswer(msgspec.Struct, eq=False):
    """See `transport.Answer`. `source` is None once the body has ended, whichever way."""

    source: Source | None
    waiter: asyncio.Future[None] | None
    """Awaited by `send` for the head, then by `read` for bytes; resolved by `wake`."""
    status: int = 0
    """0 until the head is here."""
    headers: RawHeaders = []
    fault: Fault | None = None
    stale: bool = False
    """The connection had served before and died without a byte of this answer."""
    unread: list[bytes] = []
    unread_bytes: int = 0

    def put(self, chunk: bytes) -> None:
        """Body bytes, from the connection."""
        self.unread.append(chunk)
        self.unread_bytes += len(chunk)
        if self.waiter is not None:
            self.wake()

    def end(self, fault: Fault | None = None) -> None:
        """The body's end, from the connection; with a fault when it isn't a clean one."""
        self.source = None
        self.fault = fault
        self.wake()

    def wake(self) -> None:
        """Let the reader look again."""
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def read(self) -> bytes:
        """See `transport.Answer`. A cancelled read closes the answer."""
        unread = self.unread
        while not unread:
            if self.source is None:
                if self.fault is not None:
                    raise self.fault
                return b""
            waiter = self.waiter = asyncio.get_running_loop().create_future()
            try:
                await waiter
            except asyncio.CancelledError:
                self.close()
                raise
        paused = self.unread_bytes > HIGH_WATER_BYTES
        self.unread_bytes = 0
        if len(unread) == 1:
            chunk = unread.pop()
        else:
            chunk = b"".join(unread)
            unread.clear()
        if paused and self.source is not None:
            self.source.resume()
        return chunk

    async def read_all(self, at_most: int) -> bytes | None:
        """See `transport.Answer`. What exceeds `at_most` is at most what one `read` gives."""
        if self.source is None and self.fault is None and self.unread_bytes <= at_most:
            body = b"".join(self.unread)  # all here already: the common case, without a coroutine per read
            self.unread.clear()
            self.unread_bytes = 0
            return body
        chunks: list[bytes] = []
        size = 0
        while chunk := await self.read():
            chunks.append(chunk)
            size += len(chunk)
            if size > at_most:
                self.unread[:0] = chunks
                self.unread_bytes += size
                return None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def close(self) -> None:
        """See `transport.Answer`. A reader that waits meanwhile gets a Fault."""
        self.unread.clear()
        source = self.source
        if source is not None:
            self.end(Fault(UPSTREAM_BROKEN, "the answer was closed by its reader"))
            source.drop()
