"""One request and its answer, as the application sees them: the ASGI scope, `receive` and `send`.

Promises: a head and a body that are sent whole leave in one write; `send` waits while the client takes less than it is
given; an answer is whole, or its connection is cut. Fails as ASGI allows: `send` raises RuntimeError for what can't
be framed, and after the client has left it does nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from uvicorn.server import ServerState

from gateway.domain.faults import INTERNAL, Fault
from gateway.edge.exchange import Message, Scope
from gateway.edge.http_limits import MAX_DISCARDED_BYTES, MAX_UNREAD_BYTES
from gateway.edge.http_response_head import response_head
from gateway.telemetry.log import log
from gateway.upstream.coarse_clock import CoarseClock

JOINED_BYTES = 32_768
"""A body up to this size is copied behind its head; a larger one is written beside it."""


class Tunnelled(Protocol):
    """An `asyncio.Protocol` that takes the place of a connection which has switched to another protocol than HTTP."""

    deadline: float
    """On the clock that it was given."""

    def joined(self, transport: asyncio.Transport, clock: CoarseClock, leave: Callable[[Any], None]) -> None:
        """The connection is yours, in place of `connection_made`; `leave` is called with you once it is lost."""
        ...

    def data_received(self, data: bytes) -> None:
        """As of `asyncio.Protocol`."""
        ...

    def expire(self) -> None:
        """The deadline is over."""
        ...

    def shutdown(self) -> None:
        """The server stops."""
        ...


class Connection(Protocol):
    """What an exchange asks of the connection it came over."""

    choked: bool
    """More is written than the client takes."""
    state: ServerState
    write: Callable[[bytes], None]

    def write_pair(self, head: bytes, body: bytes) -> None:
        """Write both, without a copy."""
        ...

    async def drained(self) -> None:
        """Wait until the client has taken what was written, or is gone."""
        ...

    def await_body(self) -> None:
        """The application waits for the client."""
        ...

    def resume(self) -> None:
        """Read on: the application has caught up."""
        ...

    def answered(self, exchange: "HttpExchange") -> None:
        """The answer is whole."""
        ...

    def switch(self, exchange: "HttpExchange", head: bytes, end: Tunnelled) -> None:
        """Write `head` and let `end` have the socket."""
        ...

    def refuse(self, fault: Fault) -> None:
        """Answer in the application's place, nothing of whose answer was written, and close."""
        ...

    def cut(self) -> None:
        """Close at once."""
        ...


class HttpExchange:
    """Made by a connection for each request. `keep` is whether the connection goes on after the answer.

    `announced` is the length of the request's body, None where it is chunked; `unread` what of it has come and was not
    read; `whole` says that all of it has come, `gone` that nobody waits for the answer any more, `begun` that its head
    was written, `complete` that its end was.
    """

    __slots__ = (
        "_chunked",
        "_handed",
        "_head",
        "_left",
        "_no_body",
        "_started",
        "_waiters",
        "announced",
        "begun",
        "complete",
        "connection",
        "expects",
        "gone",
        "keep",
        "scope",
        "taken_bytes",
        "task",
        "unread",
        "whole",
    )

    def __init__(
        self, connection: Connection, scope: Scope, announced: int | None, keep: bool = True, expects: bool = False
    ) -> None:
        self.connection = connection
        self.scope = scope
        self.announced = announced
        self.keep = keep
        self.expects = expects
        self.whole = self.gone = self.begun = self.complete = self._handed = self._started = False
        self.taken_bytes = 0
        self.unread = self._head = b""
        self._waiters: list[asyncio.Future[None]] | None = None
        self.task: asyncio.Task[None] | None = None

    async def run(self, app: Callable[..., asyncio.Future[None]], tasks: "set[asyncio.Task[None]]") -> None:
        """Serve the request by `app`. Whatever that does, the connection is left in order."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self.complete:
                self.connection.cut()
            raise
        except Exception as error:  # noqa: BLE001  # the entry: whatever the application raises ends here
            log.error("app_failed", path=self.scope["path"], exc_info=error)
            self._fail("the application raised")
        else:
            if not (self.complete or self.gone):
                log.error("app_left_its_answer_open", path=self.scope["path"])
                self._fail("the application returned without an answer")
        finally:
            if self.task is not None:
                tasks.discard(self.task)

    # -- ASGI

    async def receive(self) -> Message:
        """The next piece of the body, then, once the client has left or the answer is whole, the disconnect."""
        while not (self.gone or self.complete):
            body = self.unread
            if body or (self.whole and not self._handed):
                self.unread, self._handed = b"", self.whole
                if len(body) > MAX_UNREAD_BYTES:
                    self.connection.resume()
                return {"type": "http.request", "body": body, "more_body": not self.whole}
            if self.expects:
                self.expects = False
                self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self._more()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Start the answer, or send the next piece of its body."""
        if self.connection.choked:
            if "dropped_if_choked" in message:
                return
            await self.connection.drained()
        if self.gone:
            return
        kind = message["type"]
        if kind == "http.response.body" and self._started and not self.complete:
            self._send_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start" and not self._started:
            self._start(message)
        elif kind == "tollway.switch" and not self._started and "websocket" in self.scope:
            self.connection.switch(self, message["head"], message["end"])
        else:
            raise RuntimeError(f"{kind} is out of turn")

    # -- from the connection

    def put(self, chunk: bytes) -> None:
        """Take a piece of the body."""
        self.expects = False
        self.taken_bytes += len(chunk)
        if not self.complete:
            self.unread = self.unread + chunk if self.unread else chunk
            if self._waiters:
                self.wake()

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        self.gone = True
        self.wake()

    def wake(self) -> None:
        """Let `receive` look again."""
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def probe(self) -> bytes:
        """Bytes that change nothing for a client that still reads, and make the host of one that is gone say so.

        An interim answer, which HTTP/1.1 lets come at any time (RFC 9110 §15.2); or, inside a chunked body, a leading
        zero of the next chunk's size (RFC 9112 §7.1: 1*HEXDIG). Empty where there is nothing of the kind.
        """
        if not self.begun:
            return b"HTTP/1.1 100 Continue\r\n\r\n" if self.scope["http_version"] == "1.1" else b""
        return b"0" if self._chunked and not self.complete else b""

    @property
    def is_awaited(self) -> bool:
        """Whether the application waits in `receive`."""
        return bool(self._waiters)

    # -- inside

    async def _more(self) -> None:
        """Wait until there is something new to look at."""
        waiter = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        if not self.whole:
            self.connection.await_body()
        await waiter

    def _start(self, message: Message) -> None:
        scope, defaults, fields = self.scope, self.connection.state.default_headers, message.get("headers", ())
        try:
            head = response_head(
                message["status"],
                [*defaults, *fields] if defaults else fields,
                scope["http_version"],
                self.keep and (self.whole or self._is_body_worth_reading()),
                scope["method"] == "HEAD",
            )
        except ValueError as error:
            raise RuntimeError(f"the answer can't be framed: {error}") from error
        self._started = True
        self._head, self._left, self._chunked, self._no_body, self.keep = head
        if self._left is None:  # a stream, most likely: its reader may want the head before there is a body
            self.begun = True
            self.connection.write(self._head)
            self._head = b""

    def _is_body_worth_reading(self) -> bool:
        """Whether the rest of the body will be read for the sake of the connection."""
        return not self.expects and (self.announced or 0) - self.taken_bytes <= MAX_DISCARDED_BYTES

    def _send_body(self, body: bytes, more: bool) -> None:
        if self._no_body:
            body = b""
        elif self._left is not None:
            left = self._left - len(body)
            if left < 0 or (left and not more):
                raise RuntimeError(f"the body is {'longer' if left < 0 else 'shorter'} than its content-length")
            self._left = left
        elif self._chunked:
            body = _chunk(body, more)
        head = self._head
        if head:
            self._head = b""
            self.begun = True
            if len(body) > JOINED_BYTES:
                self.connection.write_pair(head, body)
            else:
                self.connection.write(head + body)
        elif body:
            self.connection.write(body)
        if not more:
            self.complete = True
            if self._waiters:
                self.wake()
            self.connection.answered(self)

    def _fail(self, text: str) -> None:
        """The application can't finish the answer."""
        if self.complete or self.gone:
            return
        if self.begun:
            self.connection.cut()
        else:
            self.connection.refuse(Fault(INTERNAL, text))


def _chunk(body: bytes, more: bool) -> bytes:
    """RFC 9112 §7.1."""
    if not body:
        return b"" if more else b"0\r\n\r\n"
    return (b"%x\r\n%b\r\n" if more else b"%x\r\n%b\r\n0\r\n\r\n") % (len(body), body)
