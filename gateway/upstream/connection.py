"""One connection to an upstream: one exchange at a time, then idle, then the next.

Owns the parser (httptools), the deadline of whatever it waits for, and flow control both ways. Whatever the peer does
ends the exchange with an answer or a Fault; after anything but a clean end the connection closes and is never reused.
This is the hot path: no task, no timer, and one future per exchange.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.domain.faults import UPSTREAM_BROKEN, UPSTREAM_TIMEOUT, Fault, FaultKind
from gateway.upstream.answer import HIGH_WATER_BYTES, LeanAnswer
from gateway.upstream.coarse_clock import CoarseClock
from gateway.upstream.transport import RawHeaders, Timeouts

MAX_HEAD_BYTES = 65_536
"""Also the most that 1xx heads, chunk extensions or trailers may take without a body byte between them."""
MAX_HEADERS = 256
_CODING = b"transfer-encoding"


class _HeadIsAll(Exception):  # noqa: N818  # a signal through the parser, never seen outside
    """The answer to a HEAD request ends with its head, whatever its fields say (RFC 9110 §9.3.2)."""


class Connection(asyncio.Protocol):
    """`deadline` is the moment (of the pool's clock) at which `expire` is due; it covers idleness too."""

    __slots__ = (
        "_arrived",
        "_barren_bytes",
        "_callbacks",
        "_clock",
        "_complete",
        "_drained",
        "_head_only",
        "_headers",
        "_idle_s",
        "_junk",
        "_keep",
        "_on_free",
        "_on_gone",
        "_parser",
        "_paused",
        "_reused",
        "_sending",
        "_timeouts",
        "_transport",
        "answer",
        "closed",
        "deadline",
        "last_deadline",
    )

    def __init__(
        self,
        clock: CoarseClock,
        timeouts: Timeouts,
        idle_s: float,
        on_free: Callable[["Connection"], None],
        on_gone: Callable[["Connection"], None],
    ) -> None:
        self._clock, self._timeouts, self._idle_s = clock, timeouts, idle_s
        self._on_free, self._on_gone = on_free, on_gone
        self.answer: LeanAnswer | None = None
        self.closed = False
        self.deadline = self.last_deadline = math.inf
        self._arrived: list[bytes] = []
        self._headers: RawHeaders = []
        self._barren_bytes = 0
        self._complete = self._head_only = self._junk = self._keep = False
        self._paused = self._reused = self._sending = False
        self._drained: asyncio.Future[None] | None = None
        self._callbacks = SimpleNamespace(
            on_message_begin=self._on_message_begin,
            on_header=self._on_header,
            on_headers_complete=self._on_headers_complete,
            on_body=self._arrived.append,  # no Python frame per chunk
            on_message_complete=self._on_message_complete,
        )
        self._parser = HttpResponseParser(self._callbacks)

    # -- the exchange

    def begin(
        self, arrival: asyncio.Future[None], head: bytes, body: bytes, *, head_only: bool, streamed: bool = False
    ) -> LeanAnswer:
        """Write a request and return its answer, still empty; `arrival` is resolved once its head or a fault is here.

        With `streamed`, `send_body` must follow. `head_only` is for HEAD, whose answers have no body.
        """
        answer = LeanAnswer(self, arrival)
        if self.closed:
            answer.stale = self._reused
            answer.end(Fault(UPSTREAM_BROKEN, "the connection closed before the request was sent"))
            return answer
        self.answer = answer
        self._headers = []
        self._barren_bytes = 0
        self._complete = self._junk = False
        self._head_only, self._sending = head_only, streamed
        timeouts = self._timeouts
        self.deadline = self._clock.ahead + timeouts.first_byte_s
        if timeouts.total_s:
            self.last_deadline = self._clock.ahead + timeouts.total_s
        self._transport.write(head)
        if body:
            self._transport.write(body)
        return answer

    async def send_body(self, body: AsyncIterator[bytes], *, chunked: bool) -> None:
        """Send the body of an exchange begun with `streamed`, at the pace of its slower end."""
        self.deadline = math.inf
        async for chunk in body:
            if self.closed:
                return
            if chunk:
                self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
            if self._drained is not None:
                await self._wait_until_drained(self._drained)
        if self.closed:
            return
        if chunked:
            self._transport.write(b"0\r\n\r\n")
        self._sending = False
        self.deadline = self._clock.ahead + self._timeouts.first_byte_s

    async def _wait_until_drained(self, drained: asyncio.Future[None]) -> None:
        self.deadline = self._clock.ahead + self._timeouts.between_bytes_s
        await drained
        if self.answer is not None and not self.answer.status:
            self.deadline = math.inf

    def drop(self) -> None:
        """Close at once, whatever is under way, and tell the pool. Idempotent."""
        if not self.closed:
            self._gone()
            self._transport.abort()

    def resume(self) -> None:
        """Read from the socket again: the reader has caught up."""
        if self._paused:
            self._paused = False
            self.deadline = self._clock.ahead + self._timeouts.between_bytes_s
            self._transport.resume_reading()

    def expire(self) -> None:
        """The deadline is over: say what was waited for, and close."""
        answer, timeouts = self.answer, self._timeouts
        if answer is None:
            self.drop()
        elif self.last_deadline <= self._clock.now:
            self._fail(UPSTREAM_TIMEOUT, f"total: the exchange took longer than {timeouts.total_s} s")
        elif answer.status:
            self._fail(UPSTREAM_TIMEOUT, f"between bytes: nothing came for {timeouts.between_bytes_s} s")
        elif self._sending:
            self._fail(UPSTREAM_TIMEOUT, f"between bytes: the body was not taken for {timeouts.between_bytes_s} s")
        else:
            self._fail(UPSTREAM_TIMEOUT, f"first byte: no answer within {timeouts.first_byte_s} s")

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        answer = self.answer
        if answer is None:
            self.drop()
            return
        self._barren_bytes += len(data)
        broken = ""
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            broken = self._stumble(error, data)
        arrived = self._arrived
        if arrived:
            self._barren_bytes = 0
            answer.put(arrived[0] if len(arrived) == 1 else b"".join(arrived))
            arrived.clear()
        if self._complete:
            self._finish(answer)
        elif broken:
            self._fail(UPSTREAM_BROKEN, broken)
        elif self._barren_bytes > MAX_HEAD_BYTES:
            self._fail(UPSTREAM_BROKEN, f"over {MAX_HEAD_BYTES} bytes of head, chunk extension or trailer")
        elif answer.unread_bytes > HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self.deadline = math.inf
            self._transport.pause_reading()
        elif not self._barren_bytes and not self._paused:
            self.deadline = self._clock.ahead + self._timeouts.between_bytes_s

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop, once."""
        answer = self.answer
        if answer is not None:
            if exc is None and answer.status and not self._keep and self._ends_by_close():
                self.answer = None
                answer.end()
            else:
                answer.stale = self._reused and not answer.status and not self._barren_bytes
                self._fail(UPSTREAM_BROKEN, f"the connection closed mid-answer: {exc or 'end of stream'}")
        self._gone()

    def pause_writing(self) -> None:
        """Called by the loop when the peer takes the body slower than it comes."""
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Called by the loop."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    # -- the parser's callbacks

    def _on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("bytes after the answer")

    def _on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.rstrip()))

    def _on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if len(self._headers) > MAX_HEADERS:
            raise ValueError("too many header fields")
        if status < 200:
            if status < 100 or status == 101:
                raise ValueError(f"status {status}")
            return
        self._keep = self._parser.should_keep_alive()
        if not self._keep and any(n == _CODING and not _ends_chunked(v) for n, v in self._headers):
            raise ValueError("a transfer coding nobody asked for")
        answer = cast("LeanAnswer", self.answer)
        answer.headers = self._headers
        self._headers = []  # trailers are collected, bounded, and ignored
        answer.status = status
        self.deadline = self._clock.ahead + self._timeouts.between_bytes_s
        answer.wake()
        if self._head_only:
            raise _HeadIsAll

    def _on_message_complete(self) -> None:
        if cast("LeanAnswer", self.answer).status:
            self._complete = True
        else:
            self._headers = []

    # -- ends

    def _stumble(self, error: Exception, data: bytes) -> str:
        """What the parser's error means for the exchange: "" when its answer is whole all the same."""
        if self._complete:
            self._junk = True
            return ""
        if isinstance(error.__context__, _HeadIsAll):
            self._complete = True
            self._junk = data.find(b"\r\n\r\n") != len(data) - 4
            self._parser = HttpResponseParser(self._callbacks)
            return ""
        return f"not HTTP: {error.__context__ or error}"

    def _finish(self, answer: LeanAnswer) -> None:
        """The answer is whole: the connection is free for the next request, unless something speaks against it."""
        self.answer = None
        answer.end()
        if not self._keep or self._junk or self._sending or self._transport.get_write_buffer_size():
            self.drop()
            return
        if self._paused:
            self.resume()
        self._reused = True
        self.deadline, self.last_deadline = self._clock.ahead + self._idle_s, math.inf
        self._on_free(self)

    def _ends_by_close(self) -> bool:
        """Whether the answer's body has no other end than the connection's (RFC 9112 §6.3)."""
        names = {name for name, _ in cast("LeanAnswer", self.answer).headers}
        return b"content-length" not in names and _CODING not in names

    def _fail(self, kind: FaultKind, text: str) -> None:
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.end(Fault(kind, text))
        self.drop()

    def _gone(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.resume_writing()
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.end(Fault(UPSTREAM_BROKEN, "the connection was closed"))
        self._on_gone(self)


def _ends_chunked(codings: bytes) -> bool:
    """Whether the last transfer coding is the one that frames a body (RFC 9112 §6.1)."""
    return codings.lower().rpartition(b",")[2].strip() == b"chunked"
