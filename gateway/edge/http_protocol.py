"""What comes over a connection of the HTTP/1.1 server: a protocol class for uvicorn's server, on httptools (llhttp).

The gateway's hot path: a request costs one task, one write and no timer. Promises: what is no HTTP gets an answer that
says why, and the connection's end; no client holds memory beyond `http_limits`; no bytes raise anything.
"""

import asyncio
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.domain.faults import HEAD_TOO_LARGE, TARGET_TOO_LONG, TOO_MANY_CONNECTIONS, Fault
from gateway.edge.http_connection import HttpConnection
from gateway.edge.http_exchange import HttpExchange, Tunnelled
from gateway.edge.http_known_head import KnownHead
from gateway.edge.http_limits import (
    MAX_DISCARDED_BYTES,
    MAX_HEAD_BYTES,
    MAX_QUEUED,
    MAX_TARGET_BYTES,
    MAX_UNREAD_BYTES,
)
from gateway.edge.http_request_head import asks_for_websocket, bad, read_head, without_upgrade
from gateway.telemetry.log import log
from gateway.upstream.transport import RawHeaders

MAX_UNKNOWN = 8
"""Heads in a row that were not like the one before, after which a connection's heads are no longer remembered."""

_Stop = HttpParserError | HttpParserUpgrade
_SPACE = 32
_STOPS = (HttpParserError, HttpParserUpgrade)


class _Enough(Exception):  # noqa: N818  # no error: how a callback stops the parser
    """No further request of this connection is read."""


class HttpProtocol(HttpConnection):
    """Reads requests and hands them on, with a stop where more come than can be taken.

    `_barren_bytes` came since a head's start, or in a body without bringing any of it; `_large`: they may be too many;
    `_upgrading` is a head to be read again, without its wish to speak another protocol.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._barren_bytes, self._large, self._upgrading = 0, False, b""
        self._known: KnownHead | None = None
        self._between, self._unknown = True, 0
        self._target: list[bytes] = []
        self._fields: RawHeaders = []
        self._arrived: list[bytes] = []
        self._callbacks = SimpleNamespace(
            on_message_begin=self._on_message_begin,
            on_url=self._target.append,  # no Python frame
            on_header=_collector(self._fields),
            on_headers_complete=self._on_headers_complete,
            on_body=self._arrived.append,
            on_message_complete=self._on_message_complete,
        )
        self._parser = HttpRequestParser(self._callbacks)

    # -- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Called by the loop. Raises nothing."""
        known = self._known
        if self._deaf or (known is not None and self._is_known(known, data)):
            return
        first = self._between and self._exchange is None
        size = self._barren_bytes = self._barren_bytes + len(data)
        self._large = size > MAX_HEAD_BYTES
        try:
            self._parser.feed_data(data)
        except _STOPS as error:
            self._stumble(error, data)
        if self._arrived:
            self._take_body()
        if not (self._between or self._deaf):
            self._on_unfinished()
        if self._queue:
            self._hold()
        elif first and self._between and self._exchange is not None and self._unknown < MAX_UNKNOWN:
            self._remember(self._exchange, data)

    def shutdown(self) -> None:
        """Called by uvicorn. A request that is still to come is read with care, for it is the last."""
        super().shutdown()
        self._known, self._unknown = None, MAX_UNKNOWN

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop, once."""
        super().connection_lost(exc)
        del self._parser, self._callbacks  # they refer back to here

    def switch(self, exchange: HttpExchange, head: bytes, end: Tunnelled) -> None:
        """See `HttpConnection`."""
        super().switch(exchange, head, end)
        del self._parser, self._callbacks

    # -- the parser's callbacks

    def _on_message_begin(self) -> None:
        self._between = False

    def _on_headers_complete(self) -> None:
        queue = self._queue
        if len(queue) >= MAX_QUEUED and not self._last:
            self._last, queue[-1].keep = True, False
        if self._last:
            raise _Enough
        fields = self._fields.copy()
        self._fields.clear()
        target = self._target[0] if len(self._target) == 1 else b"".join(self._target)
        self._target.clear()
        if self._large:
            _check_size(target, fields)
        self._barren_bytes, self._head_begun = 0, False
        scope = self._scope.copy()
        announced, keep, expects, upgrades = read_head(self._parser, target, fields, scope)
        if upgrades and asks_for_websocket(scope, announced):
            scope["websocket"] = True
            keep = False  # whatever the answer, no further request comes over this connection
        elif upgrades:
            self._upgrading = without_upgrade(self._parser.get_method(), target, fields)
            return
        if self._over:
            raise Fault(TOO_MANY_CONNECTIONS)
        keep = keep and not self._closing
        self._last = not keep
        scope["state"] = scope["state"].copy()
        exchange = self._incoming = HttpExchange(self, scope, announced, keep, expects)
        if self._exchange is None:
            self._begin(exchange)
        else:
            queue.append(exchange)

    def _on_message_complete(self) -> None:
        self._between = True
        incoming = self._incoming
        if incoming is None:  # the head is yet to come again, without its wish to upgrade
            return
        self._incoming = None
        self._barren_bytes = 0
        self._fields.clear()  # of a trailer
        incoming.whole = True
        arrived = self._arrived
        if arrived:
            incoming.put(arrived[0] if len(arrived) == 1 else b"".join(arrived))
            arrived.clear()
        elif incoming.announced != 0:
            incoming.wake()
        if incoming.complete:
            self._next()
        elif incoming is self._exchange and not self.choked:
            self.deadline = math.inf

    # -- what came

    def _is_known(self, known: KnownHead, data: bytes) -> bool:
        """Whether `data` is a request like the last one, which has then begun."""
        if self._last or self._exchange is not None or not self._between:
            return False
        scope, body = known.again(data)
        if scope is None:
            return False
        scope["state"] = scope["state"].copy()
        exchange = HttpExchange(self, scope, len(body))
        exchange.unread, exchange.whole = body, True
        self._barren_bytes, self._unknown = 0, 0
        self._begin(exchange)
        return True

    def _remember(self, exchange: HttpExchange, data: bytes) -> None:
        """Know the head of `data`, which is one whole request without anything out of the ordinary."""
        plain = exchange.keep and not exchange.expects and exchange.announced is not None and data[0] > _SPACE
        self._known = KnownHead.of(data, exchange.scope) if plain and not self._large else None
        self._unknown += 1

    def _take_body(self) -> None:
        """A part of a body has come."""
        incoming, self._barren_bytes = self._incoming, 0
        chunk = b"".join(self._arrived)
        self._arrived.clear()
        if incoming is None:  # it was refused
            return
        incoming.put(chunk)
        if incoming.complete:
            if incoming.taken_bytes > MAX_DISCARDED_BYTES:
                self._end()
            return
        if len(incoming.unread) > MAX_UNREAD_BYTES:
            self._hold()
        if incoming is self._exchange and not self.choked:
            self.deadline = math.inf

    def _on_unfinished(self) -> None:
        """The bytes that came have ended inside a request."""
        if self._barren_bytes > MAX_HEAD_BYTES:
            if self._incoming is not None:
                self._refuse_input(bad("its chunks or trailers are out of proportion"))
            elif sum(map(len, self._target)) > MAX_TARGET_BYTES:
                self._refuse_input(Fault(TARGET_TOO_LONG))
            else:
                self._refuse_input(Fault(HEAD_TOO_LARGE))
        elif self._incoming is None and not self._head_begun:
            self._head_begun = True
            self._rearm()

    def _stumble(self, error: _Stop | None, data: bytes) -> None:
        """The parser, or a callback of it, has stopped at `data`."""
        rest = memoryview(data)
        while isinstance(error, HttpParserUpgrade):
            rest = rest[error.args[0] :]
            if not self._upgrading:
                self._early = bytes(rest)
                return self._hold()
            error = self._feed_again(rest)
        if error is None:
            return None
        cause = error.__context__
        if self._last and self._incoming is None:
            self._deaf = self._junk = True
        elif isinstance(cause, Fault):
            self._refuse_input(cause)
        else:
            if cause is not None:
                log.error("http_callback_failed", exc_info=cause)
            self._refuse_input(bad(str(error)))
        return None

    def _feed_again(self, rest: memoryview) -> _Stop | None:
        """Go on with a fresh parser, the last one having stopped at a head that wished to upgrade."""
        head, self._upgrading = self._upgrading, b""
        self._parser = HttpRequestParser(self._callbacks)
        try:
            self._parser.feed_data(head)
            self._parser.feed_data(rest)
        except _STOPS as error:
            return error
        return None


def _collector(fields: RawHeaders) -> Callable[[bytes, bytes], None]:
    append = fields.append

    def on_header(name: bytes, value: bytes) -> None:
        append((name.lower(), value.rstrip()))

    return on_header


def _check_size(target: bytes, fields: RawHeaders) -> None:
    if len(target) > MAX_TARGET_BYTES:
        raise Fault(TARGET_TOO_LONG)
    if len(target) + sum(len(name) + len(value) + 4 for name, value in fields) > MAX_HEAD_BYTES:
        raise Fault(HEAD_TOO_LARGE)
