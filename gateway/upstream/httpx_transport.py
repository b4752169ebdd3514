"""The transport for what the lean one doesn't speak: HTTP/2 and forward proxies, over httpx's own transport layer.

The client layer of httpx is left out, so nothing is invented or undone: no default fields, redirects, cookies,
decoding, or proxies from the environment. Foreign exceptions become Faults here, once. Ten times the cost of
`lean_transport`; an answer that comes before a streamed body's end is seen only once that body ends or can't be sent,
and an upstream that sends two HTTP/1.1 answers at once is believed, so it's for upstreams that are trusted.
"""

import asyncio
import contextlib
import math
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from gateway.domain.faults import (
    UPSTREAM_BROKEN,
    UPSTREAM_BUSY,
    UPSTREAM_REFUSED,
    UPSTREAM_TIMEOUT,
    Fault,
)
from gateway.upstream.origin import host_field
from gateway.upstream.request_head import NEEDS_NO_LENGTH, check_fields, exactly
from gateway.upstream.tls import verifying_context
from gateway.upstream.transport import Origin, RawHeaders, Timeouts, Unsent

_FOREIGN = (httpx.HTTPError, httpx.StreamError, OSError)
_UNREACHED = (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol)
_DIED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


class _Address(httpx.URL):
    """Origin and target. httpx tidies targets (dots, percent signs); an upstream must get the caller's own."""

    def __init__(self, origin: httpx.URL, target: bytes) -> None:
        super().__init__(origin)
        self._target = target

    @property
    def raw_path(self) -> bytes:
        """Asked for by httpx when it writes the request."""
        return self._target


class _Attempt(httpx.AsyncByteStream):
    """One sending of a request: its task, its body as httpx takes it, and the steps that httpx reports.

    The task is never cancelled before it writes: httpcore 1.0 keeps a place in its pool for ever for a request that is
    cancelled just after connecting. Until then an abandoned attempt goes on, and ends itself at its first write.
    """

    def __init__(self, body: bytes | AsyncIterator[bytes], first_byte_s: float, total_deadline: float) -> None:
        self._body, self._first_byte_s, self._total_deadline = body, first_byte_s, total_deadline
        self._limit = asyncio.timeout_at(_when(total_deadline))
        self._writing = self._abandoned = False
        self.connected = False

    async def run(
        self, transport: httpx.AsyncHTTPTransport, request: httpx.Request, background: set[asyncio.Task[Any]]
    ) -> httpx.Response:
        """The answer, its head read. Raises TimeoutError, or what httpx raises."""
        task = asyncio.get_running_loop().create_task(transport.handle_async_request(request))
        background.add(task)
        task.add_done_callback(background.discard)
        try:
            async with self._limit:
                return await asyncio.shield(task)
        except (TimeoutError, asyncio.CancelledError):
            self._abandoned = True
            if task.done() and not task.cancelled() and task.exception() is None:
                _close_soon(background, task.result())
            elif self._writing:
                task.cancel()
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Called by httpx for the body. The wait for the first byte begins when the last one is out."""
        if isinstance(self._body, bytes):
            yield self._body
        else:
            async for chunk in self._body:
                yield chunk
        if not self._abandoned:
            first_byte_deadline = asyncio.get_running_loop().time() + self._first_byte_s
            self._limit.reschedule(_when(min(self._total_deadline, first_byte_deadline)))

    async def trace(self, event: str, _info: Mapping[str, Any]) -> None:
        """Called by httpx at each step."""
        if event == "connection.connect_tcp.started":
            self.connected = True
        elif event.endswith(".send_request_headers.started"):
            self._writing = True
            if self._abandoned:
                raise asyncio.CancelledError


class HttpxAnswer:
    """See `transport.Answer`."""

    def __init__(
        self,
        response: httpx.Response,
        between_bytes_s: float,
        total_deadline: float,
        background: set[asyncio.Task[Any]],
    ) -> None:
        self.status = response.status_code
        self.headers: RawHeaders = [(name.lower(), value) for name, value in response.headers.raw]
        self._response = response
        self._chunks = aiter(response.stream) if isinstance(response.stream, httpx.AsyncByteStream) else None
        self._between_bytes_s, self._total_deadline = between_bytes_s, total_deadline
        self._background = background
        self._unread: list[bytes] = []

    async def read(self) -> bytes:
        """See `transport.Answer`. A cancelled read closes the answer."""
        if self._unread:
            chunk = b"".join(self._unread)
            self._unread.clear()
            return chunk
        while self._chunks is not None:
            chunk = await self._next(self._chunks)
            if chunk:
                return chunk
        return b""

    async def _next(self, chunks: AsyncIterator[bytes]) -> bytes:
        """The next chunk, or b"" and no more `_chunks`."""
        between_deadline = asyncio.get_running_loop().time() + self._between_bytes_s
        try:
            async with asyncio.timeout_at(_when(min(between_deadline, self._total_deadline))):
                return await anext(chunks)
        except StopAsyncIteration:
            self._chunks = None
            await _close(self._response)
            return b""
        except TimeoutError as error:
            self.close()
            what = "between bytes" if between_deadline < self._total_deadline else "total"
            raise Fault(UPSTREAM_TIMEOUT, f"{what}: the answer took too long") from error
        except _FOREIGN as error:
            self.close()
            raise _fault_of(error) from error
        except asyncio.CancelledError:
            self.close()
            raise

    async def read_all(self, at_most: int) -> bytes | None:
        """See `transport.Answer`."""
        chunks: list[bytes] = []
        size = 0
        while chunk := await self.read():
            chunks.append(chunk)
            size += len(chunk)
            if size > at_most:
                self._unread = chunks
                return None
        return b"".join(chunks)

    def close(self) -> None:
        """See `transport.Answer`."""
        self._unread.clear()
        if self._chunks is not None:
            self._chunks = None
            _close_soon(self._background, self._response)


class HttpxTransport:
    """See `transport.Transport`. With `http2`, TLS upstreams choose by ALPN; plain ones keep to HTTP/1.1.

    `proxy` is the URL of a forward proxy; `idle_s` seconds without a request close a connection.
    """

    def __init__(
        self,
        origin: Origin,
        timeouts: Timeouts,
        *,
        max_connections: int = 1024,
        idle_s: float = 30.0,
        http2: bool = False,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._timeouts = timeouts
        self._url = httpx.URL(scheme=origin.scheme, host=origin.host, port=origin.port)
        self._base_path = origin.base_path.encode()
        self._host = (b"host", host_field(origin))
        self._background: set[asyncio.Task[Any]] = set()
        self._httpx = httpx.AsyncHTTPTransport(
            verify=ssl_context or verifying_context(),
            http2=http2,
            limits=httpx.Limits(
                max_connections=max_connections, max_keepalive_connections=max_connections, keepalive_expiry=idle_s
            ),
            trust_env=False,
            proxy=httpx.Proxy(proxy) if proxy else None,
        )

    async def send(
        self,
        method: bytes,
        target: bytes,
        headers: RawHeaders,
        body: bytes | AsyncIterator[bytes],
        length: int | None = None,
    ) -> HttpxAnswer:
        """See `transport.Transport`. A cancelled send closes its connection (or its HTTP/2 stream)."""
        check_fields(method, target, headers)
        framed = [self._host, *headers, *_framing(method, body, length)]
        if length is not None and not isinstance(body, bytes):
            body = exactly(body, length)
        total_s = self._timeouts.total_s
        total_deadline = asyncio.get_running_loop().time() + total_s if total_s else math.inf
        response = await self._attempt(method, target, framed, body, total_deadline, may_repeat=True)
        if response is None:
            response = await self._attempt(method, target, framed, body, total_deadline, may_repeat=False)
        if response is None or response.status_code < 200:
            if response is not None:
                await _close(response)
            raise Fault(UPSTREAM_BROKEN, "an answer without a final status")
        return HttpxAnswer(response, self._timeouts.between_bytes_s, total_deadline, self._background)

    async def _attempt(
        self,
        method: bytes,
        target: bytes,
        headers: RawHeaders,
        body: bytes | AsyncIterator[bytes],
        total_deadline: float,
        *,
        may_repeat: bool,
    ) -> httpx.Response | None:
        """The answer, its head read; None when a reused connection died and the request may be sent again."""
        timeouts = self._timeouts
        attempt = _Attempt(body, timeouts.first_byte_s, total_deadline)
        request = httpx.Request(
            method.decode("ascii"),
            self._url,
            headers=headers,
            stream=attempt,
            extensions={
                "trace": attempt.trace,
                "timeout": {
                    "connect": timeouts.connect_s,
                    "pool": timeouts.pool_s,
                    "write": timeouts.between_bytes_s,
                    "read": None,
                },
            },
        )
        request.url = _Address(self._url, self._base_path + target)
        try:
            return await attempt.run(self._httpx, request, self._background)
        except TimeoutError as error:
            what = "first byte" if asyncio.get_running_loop().time() < total_deadline else "total"
            raise Fault(UPSTREAM_TIMEOUT, f"{what}: no answer in time") from error
        except _FOREIGN as error:
            if may_repeat and isinstance(error, _DIED) and isinstance(body, bytes) and not attempt.connected:
                return None
            raise _fault_of(error) from error

    def connections(self) -> tuple[int, int]:
        """See `transport.Transport`."""
        pool = self._httpx._pool.connections  # noqa: SLF001  # httpx has no other way to ask
        return len(pool), sum(connection.is_idle() for connection in pool)

    async def aclose(self) -> None:
        """See `transport.Transport`."""
        await self._httpx.aclose()
        if self._background:
            await asyncio.wait(self._background)


def _close_soon(background: set[asyncio.Task[Any]], response: httpx.Response) -> None:
    """For callers that do not wait: httpx closes only by awaiting."""
    task = asyncio.get_running_loop().create_task(_close(response))
    background.add(task)
    task.add_done_callback(background.discard)


async def _close(response: httpx.Response) -> None:
    with contextlib.suppress(*_FOREIGN):
        await response.aclose()


def _framing(method: bytes, body: bytes | AsyncIterator[bytes], length: int | None) -> RawHeaders:
    if isinstance(body, bytes):
        length = len(body)
    if length is None:
        return [(b"transfer-encoding", b"chunked")]
    if not length and method in NEEDS_NO_LENGTH:
        return []
    return [(b"content-length", b"%d" % length)]


def _when(deadline: float) -> float | None:
    return None if deadline == math.inf else deadline


def _fault_of(error: Exception) -> Fault:
    name = type(error).__name__
    if isinstance(error, httpx.PoolTimeout):
        return Unsent(UPSTREAM_BUSY, f"pool: {name}")
    if isinstance(error, httpx.ConnectTimeout):
        return Unsent(UPSTREAM_TIMEOUT, f"connect: {name}")
    if isinstance(error, httpx.TimeoutException):
        return Fault(UPSTREAM_TIMEOUT, f"between bytes: {name}")
    if isinstance(error, _UNREACHED):
        return Unsent(UPSTREAM_REFUSED, f"connect: {name}: {error}")
    return Fault(UPSTREAM_BROKEN, f"{name}: {error}")
