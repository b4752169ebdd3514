"""Tunnels: a connection to an upstream for one WebSocket and for it alone, opened by its handshake (RFC 6455 §4.1).

Promises: the answer to the handshake is read as HTTP, bounded; nothing of what follows it is lost. Fails with Fault:
UPSTREAM_REFUSED, UPSTREAM_BROKEN, UPSTREAM_TIMEOUT, INVALID_HEADER.
"""

import asyncio
import ssl
from typing import cast

import msgspec
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.domain.faults import UPSTREAM_BROKEN, UPSTREAM_REFUSED, UPSTREAM_TIMEOUT, Fault
from gateway.upstream.request_head import RequestHead
from gateway.upstream.tls import verifying_context
from gateway.upstream.transport import Origin, RawHeaders, Timeouts

SWITCHING = 101
MOST_BYTES = 65_536
"""Of the answer's head, and of the body that tells why a handshake was refused."""


class Opened(msgspec.Struct, eq=False):
    """The answer to a handshake; a `transport.Answer`.

    With status 101 `transport` is paused, and `body` the bytes that came behind the head; else it is closed, and `body`
    what the upstream says.
    """

    status: int
    headers: RawHeaders
    body: bytes
    transport: asyncio.Transport

    async def read(self) -> bytes:
        """See `transport.Answer`."""
        body, self.body = self.body, b""
        return body

    async def read_all(self, at_most: int) -> bytes | None:
        """See `transport.Answer`."""
        return None if len(self.body) > at_most else await self.read()

    def close(self) -> None:
        """See `transport.Answer`: what is open is cut."""
        self.transport.abort()


class Tunnels:
    """To one origin. The authorities to trust are read at the first use."""

    def __init__(self, origin: Origin, timeouts: Timeouts, ca_file: str) -> None:
        self._origin, self._timeouts, self._ca_file = origin, timeouts, ca_file
        self._head = RequestHead(origin)
        self._context: ssl.SSLContext | None = None

    async def open(self, target: bytes, headers: RawHeaders) -> Opened:
        """Connect and shake hands. `headers` hold neither `host` nor `connection` and `upgrade`."""
        asking = [*headers, (b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        head, _ = self._head.whole(b"GET", target, asking, b"")
        handshake, switched = await self._connect(), False
        try:
            async with asyncio.timeout(self._timeouts.first_byte_s):
                handshake.transport.write(head)
                opened = await handshake.answer
        except TimeoutError as error:
            text = f"first byte: no answer to a handshake within {self._timeouts.first_byte_s} s"
            raise Fault(UPSTREAM_TIMEOUT, text) from error
        else:
            switched = handshake.switched
            return opened
        finally:  # also of a tunnel that nobody takes over, as the asker left when it opened
            if not switched:
                handshake.transport.abort()

    async def _connect(self) -> "_Handshake":
        origin, limit_s = self._origin, self._timeouts.connect_s
        if origin.scheme == "https" and self._context is None:
            self._context = verifying_context(self._ca_file)
            self._context.set_alpn_protocols(["http/1.1"])
        try:
            async with asyncio.timeout(limit_s):
                _, handshake = await asyncio.get_running_loop().create_connection(
                    _Handshake,
                    origin.host,
                    origin.port,
                    ssl=self._context,
                    server_hostname=origin.host if self._context else None,
                )
        except TimeoutError as error:
            raise Fault(UPSTREAM_TIMEOUT, f"connect: no connection within {limit_s} s") from error
        except OSError as error:
            raise Fault(UPSTREAM_REFUSED, f"connect: {error}") from error
        return handshake


class _Handshake(asyncio.Protocol):
    """Reads the answer. `switched` once a tunnel is open, whose owner then takes the transport over."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.answer: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        self.switched = False
        self._came = b""
        self._status = 0
        self._headers: RawHeaders = []
        self._body: list[bytes] = []
        self._parser = HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self.answer.done():
            return
        self._came += data
        end = self._came.find(b"\r\n\r\n")
        if self._status:
            self._feed(data)
        elif end >= 0:
            head, rest = self._came[: end + 4], self._came[end + 4 :]
            self._feed(head)
            if self._status in range(100, 200) and self._status != SWITCHING:  # interim: the next head is the answer
                self._status, self._came = 0, b""
                self._headers.clear()
                self.data_received(rest)
            elif self._status == SWITCHING:
                self._switch(rest)
            else:
                self._feed(rest)
        if len(self._came) > 2 * MOST_BYTES:
            self._fail("the answer to a handshake is too long")

    def eof_received(self) -> bool:
        """Called by the loop: an answer without a length ends so."""
        if self._status and not self.answer.done():
            self.on_message_complete()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop, once."""
        self._fail(f"the connection closed during a handshake: {exc or 'end of stream'}")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._status >= 200 and not self.answer.done():
            self.answer.set_result(Opened(self._status, self._headers, b"".join(self._body), self.transport))

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            return
        except HttpParserError as error:
            self._fail(f"not HTTP: {error}")

    def _switch(self, rest: bytes) -> None:
        upgrades = {value.lower() for name, value in self._headers if name == b"upgrade"}
        if upgrades != {b"websocket"}:
            return self._fail("the upstream switched to another protocol than websocket")
        self.switched = True
        self.transport.pause_reading()
        return self.answer.set_result(Opened(SWITCHING, self._headers, rest, self.transport))

    def _fail(self, text: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(Fault(UPSTREAM_BROKEN, text))
