"""A connection of the HTTP/1.1 server: whose turn it is, what is waited for and how long, and how it ends.

Promises: requests are answered in their order, one at a time; nothing is waited for longer than `Patience`; the last
answer reaches a client that is still sending. A client that has shut its sending side down still gets its answers; one
that is gone is told to the application as soon as its host says so.
"""

import asyncio
import math
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.domain.faults import REQUEST_TIMEOUT, Fault
from gateway.edge.http_exchange import HttpExchange, Tunnelled
from gateway.edge.http_limits import MAX_UNREAD_BYTES, Patience
from gateway.edge.http_refusal import refusal
from gateway.edge.http_service import service_of
from gateway.telemetry.log import log

SHUTDOWN_LINGER_S = 1.0
"""Of `Patience.linger_s`, once the server stops; and how long a request may then still come over an idle connection,
as its client could not know.
"""


class HttpConnection(asyncio.Protocol):
    """uvicorn makes it, calls `shutdown`, and counts it among `server_state.connections` until it is lost.

    `_exchange` is the request being answered, `_incoming` the one whose body still comes, `_queue` those that wait for
    their turn, `_refusal` what is said after them all. `_closing`: the next request is the last; `_last`: no other is
    read; `_deaf`: what comes is thrown away; `_junk`: the client may still be sending. `_early` came behind the
    handshake of a WebSocket.
    """

    patience: ClassVar[Patience] = Patience()
    write: Callable[[bytes], None]
    """Write after what was written: the transport's own method, without a Python frame."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._service = service_of(config, server_state, app_state, self.patience)
        self._clock = self._service.clock
        self.state = server_state
        self.deadline = math.inf
        self.choked = False
        self._stuck_at, self._stuck_bytes = math.inf, 0
        self._drains: list[asyncio.Future[None]] = []
        self._exchange: HttpExchange | None = None
        self._incoming: HttpExchange | None = None
        self._queue: deque[HttpExchange] = deque()
        self._refusal = self._early = b""
        self._head_begun = False
        self._deaf = self._last = self._junk = self._over = self._closing = self._paused = self._half_closed = False

    # -- from uvicorn

    def shutdown(self) -> None:
        """Answer what is under way and close; a client that wasn't told so may ask once more meanwhile."""
        self._closing, self._service.keep_alive_s = True, SHUTDOWN_LINGER_S
        if self._exchange is not None and self._exchange.begun and not self._queue:
            return
        if self._exchange is not None:
            self._last = True
            (self._queue[-1] if self._queue else self._exchange).keep = False
        elif self._deaf:
            self.deadline = min(self.deadline, self._clock.ahead + SHUTDOWN_LINGER_S)
        elif self._incoming is not None:
            self._end()
        elif not self._head_begun:
            self.deadline = min(self.deadline, self._clock.ahead + SHUTDOWN_LINGER_S)

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write
        service = self._service
        service.join(self)
        self._over = service.most_connections is not None and len(service.connections) > service.most_connections
        self._scope = service.scope(transport)
        self.deadline = self._clock.ahead + self.patience.head_s

    def eof_received(self) -> bool:
        """Called by the loop. True keeps the connection open for the answers that are owed."""
        exchange = self._exchange
        if exchange is None or self._incoming is not None or self._scope["scheme"] == "https":
            if exchange is not None:
                exchange.leave()
            return False
        self._half_closed = self._last = True
        if not self.choked and (probe := exchange.probe()):
            self.write(probe)
        self._rearm()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop, once."""
        del exc
        self._service.connections.discard(self)
        self._deaf, self.deadline = True, math.inf
        exchange, self._exchange, self._incoming = self._exchange, None, None
        self._queue.clear()
        if exchange is not None:
            exchange.leave()
        self._wake_senders()

    def pause_writing(self) -> None:
        """Called by the loop when the client takes the answer slower than it comes."""
        self.choked = True
        self._stuck_at = self.deadline = self._clock.ahead + self.patience.answer_s
        self._stuck_bytes = self._transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._wake_senders()
        self._rearm()

    # -- from the exchange

    def write_pair(self, head: bytes, body: bytes) -> None:
        """Write both, without a copy."""
        self._transport.writelines((head, body))

    async def drained(self) -> None:
        """Wait until the client has taken what was written, or is gone."""
        while self.choked:
            waiter = self._service.loop.create_future()
            self._drains.append(waiter)
            await waiter

    def await_body(self) -> None:
        """The application waits for the client."""
        if not self.choked:
            self.deadline = self._clock.ahead + self.patience.body_s

    def resume(self) -> None:
        """Read on, where nothing speaks against it."""
        incoming = self._incoming
        if not self._paused or self._queue or (incoming is not None and len(incoming.unread) > MAX_UNREAD_BYTES):
            return
        self._paused = False
        if not (self._half_closed or self._transport.is_closing()):
            self._transport.resume_reading()

    def answered(self, exchange: HttpExchange) -> None:
        """The current exchange's answer is whole: on to what the client sends next."""
        self.state.total_requests += 1
        self._exchange = None
        if not exchange.keep:
            self._end()
        elif exchange.whole:
            if self._queue or self._last or self._head_begun or self.choked:
                self._next()
            else:
                self.deadline = self._clock.ahead + self._service.keep_alive_s
        else:
            exchange.unread, exchange.taken_bytes = b"", 0
            self.deadline = self._clock.ahead + self.patience.discard_s
            self.resume()

    def refuse(self, fault: Fault) -> None:
        """Answer the current exchange in the application's place, nothing of whose answer was written, and close."""
        exchange, self._exchange = self._exchange, None
        self.state.total_requests += 1
        head_only = False
        if exchange is not None:
            exchange.leave()
            head_only = exchange.scope["method"] == "HEAD"
        self.write(refusal(fault, self.state.default_headers, head_only=head_only))
        self._end()

    def switch(self, exchange: HttpExchange, head: bytes, end: Tunnelled) -> None:
        """Speak HTTP no more: `end` owns the socket from here on, and stands in for this connection at the server."""
        service, transport = self._service, self._transport
        exchange.complete = True
        self.state.total_requests += 1
        self._exchange, self._deaf = None, True
        service.connections.discard(self)
        service.connections.add(end)
        self.write(head)
        transport.set_protocol(cast("asyncio.Protocol", end))
        end.joined(transport, self._clock, service.connections.discard)
        if self._early:
            end.data_received(self._early)
        if self._paused:
            transport.resume_reading()

    def cut(self) -> None:
        """Close at once."""
        if self._exchange is not None:
            self._exchange.leave()
        self._transport.abort()

    # -- turns

    def _refuse_input(self, fault: Fault) -> None:
        """Answer what can't be read, in its turn, and close."""
        if self._deaf:
            return None
        self._deaf = self._junk = self._last = True
        incoming, self._incoming = self._incoming, None
        log.debug("request_refused", code=fault.kind.code, detail=str(fault))
        if incoming is not None and incoming.complete:  # it was thrown away
            return self._end()
        self._refusal = refusal(fault, self.state.default_headers)
        if incoming is None:
            if self._exchange is None:
                self._next()
        elif incoming is not self._exchange:
            self._queue.remove(incoming)
        else:
            self._exchange = None
            incoming.leave()
            if incoming.begun:
                return self._transport.abort()
            self._next()
        return None

    def _begin(self, exchange: HttpExchange) -> None:
        self._exchange = exchange
        self.deadline = self._clock.now if self._half_closed else math.inf
        service = self._service
        task = exchange.task = service.create_task(exchange.run(service.app, service.tasks))
        service.tasks.add(task)

    def _next(self) -> None:
        """Nothing is under way: take up what waits, or wait for the client."""
        if self._queue:
            self._begin(self._queue.popleft())
            self.resume()
        elif self._refusal:
            self.write(self._refusal)
            self._end()
        elif self._last:
            self._end()
        else:
            self._rearm()

    def _end(self) -> None:
        """The last answer was written: close once the client has taken it.

        Where the client may still be sending, a plain close would reset the connection and so take the answer away from
        it (RFC 9112 §9.6): it is told the end, and what it sends is thrown away until it closes.
        """
        self._deaf = True
        self._queue.clear()
        transport, incoming = self._transport, self._incoming
        self._incoming = None
        self._stuck_at = self.deadline = self._clock.ahead + self.patience.linger_s
        self._stuck_bytes = transport.get_write_buffer_size() + 1
        if self._half_closed or not (self._junk or self._paused or incoming):
            transport.close()
        elif not transport.is_closing():
            self.resume()
            if transport.can_write_eof():
                transport.write_eof()

    def _hold(self) -> None:
        if not (self._paused or self._half_closed or self._transport.is_closing()):
            self._paused = True
            self._transport.pause_reading()

    def _wake_senders(self) -> None:
        self.choked = False
        for waiter in self._drains:
            if not waiter.done():
                waiter.set_result(None)
        self._drains.clear()

    # -- waits

    def _rearm(self) -> None:
        """Set the deadline for what the connection waits for now."""
        clock, patience, exchange = self._clock, self.patience, self._exchange
        if self.choked:
            self.deadline = self._stuck_at
        elif self._deaf and exchange is None:
            self.deadline = clock.ahead + patience.linger_s
        elif exchange is None:
            self.deadline = clock.ahead + (patience.head_s if self._head_begun else self._service.keep_alive_s)
        elif self._half_closed:
            self.deadline = clock.now
        elif exchange.is_awaited and not exchange.whole:
            self.deadline = clock.ahead + patience.body_s
        else:
            self.deadline = math.inf

    def expire(self) -> None:
        """The deadline is over."""
        exchange = self._exchange
        if self.choked or (self._deaf and exchange is None):
            self._look_whether_stuck()
        elif exchange is not None and self._half_closed:
            self._look_whether_gone()
        elif exchange is not None or self._head_begun:
            self._refuse_input(Fault(REQUEST_TIMEOUT))
        elif self._incoming is not None:
            self._end()
        else:
            self._deaf = True
            self._transport.close()

    def _look_whether_stuck(self) -> None:
        left = self._transport.get_write_buffer_size()
        if not left or left >= self._stuck_bytes:
            return self._transport.abort()
        self._stuck_bytes = left
        self._stuck_at = self.deadline = self._clock.ahead + self.patience.answer_s
        return None

    def _look_whether_gone(self) -> None:
        """A half-closed client that is gone: its host has answered our probe by a reset, which nobody has read."""
        raw: socket.socket = self._transport.get_extra_info("socket")
        if raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.cut()
        else:
            self.deadline = self._clock.now
