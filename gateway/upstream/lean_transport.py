"""The lean transport: HTTP/1.1 to one origin, with or without TLS, on httptools and pooled keep-alive connections.

The gateway's hot path: a request with its body in memory costs one write, one future and no task. Promises what
`transport` promises; every failure is a Fault whose internal text says which time-out or what the peer did.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine

from gateway.domain.faults import Fault
from gateway.upstream.answer import LeanAnswer
from gateway.upstream.connection import Connection
from gateway.upstream.pool import Pool
from gateway.upstream.request_head import RequestHead, exactly
from gateway.upstream.tls import verifying_context
from gateway.upstream.transport import Origin, RawHeaders, Timeouts


class LeanTransport:
    """See `transport.Transport`. Made inside a running loop and used by that loop alone.

    `idle_s` seconds without a request close a connection. An https origin without `ssl_context` gets
    `verifying_context()`; an http origin ignores it.
    """

    def __init__(
        self,
        origin: Origin,
        timeouts: Timeouts,
        *,
        max_connections: int = 1024,
        idle_s: float = 30.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        secure = (ssl_context or verifying_context()) if origin.scheme == "https" else None
        if secure is not None:
            secure.set_alpn_protocols(["http/1.1"])
        self._head = RequestHead(origin)
        self._pool = Pool(origin, timeouts, max_connections=max_connections, idle_s=idle_s, ssl_context=secure)
        self._create_future = asyncio.get_running_loop().create_future

    async def send(
        self,
        method: bytes,
        target: bytes,
        headers: RawHeaders,
        body: bytes | AsyncIterator[bytes],
        length: int | None = None,
    ) -> LeanAnswer:
        """See `transport.Transport`. A cancelled send closes its connection."""
        if not isinstance(body, bytes):
            return await self._send_streamed(method, target, headers, body, length)
        head, rest = self._head.whole(method, target, headers, body)
        connection = self._pool.take() or await self._pool.acquire()
        retried = False
        while True:
            arrival = self._create_future()
            answer = connection.begin(arrival, head, rest, head_only=method == b"HEAD")
            try:
                await arrival
            except asyncio.CancelledError:
                # Not the connection: where the answer is whole by now, another request may be under way on it.
                answer.close()
                raise
            if answer.status:
                return answer
            if retried or not answer.stale:
                raise _fault_of(answer)
            retried = True
            connection = await self._pool.acquire(fresh=True)

    async def _send_streamed(
        self, method: bytes, target: bytes, headers: RawHeaders, body: AsyncIterator[bytes], length: int | None
    ) -> LeanAnswer:
        """Send and listen at once. An answer that comes before the body's end ends the sending."""
        head = self._head.streamed(method, target, headers, length)
        connection = self._pool.take() or await self._pool.acquire()
        arrival = self._create_future()
        answer = connection.begin(arrival, head, b"", head_only=method == b"HEAD", streamed=True)
        sending = asyncio.get_running_loop().create_task(_sending(connection, body, length))
        try:
            await asyncio.wait((arrival, sending), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            await arrival
        except BaseException:
            answer.close()
            raise
        finally:
            await _stop(sending)
        if answer.status:
            return answer
        raise _fault_of(answer)

    def connections(self) -> tuple[int, int]:
        """See `transport.Transport`."""
        return self._pool.size()

    async def aclose(self) -> None:
        """See `transport.Transport`."""
        await self._pool.aclose()


def _sending(connection: Connection, body: AsyncIterator[bytes], length: int | None) -> Coroutine[None, None, None]:
    if length is None:
        return connection.send_body(body, chunked=True)
    return connection.send_body(exactly(body, length), chunked=False)


def _fault_of(answer: LeanAnswer) -> Fault:
    if answer.fault is None:
        raise AssertionError("an answer without a head ends in a fault")
    return answer.fault


async def _stop(sending: asyncio.Task[None]) -> None:
    sending.cancel()
    await asyncio.wait((sending,))
    if not sending.cancelled():
        sending.exception()
