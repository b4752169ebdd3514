"""The link to Redis: one connection, all calls of a loop turn in one write, answers in order.

Promises: a call alone leaves within the same loop turn; no task and no timer per call; every future is resolved within
`timeout_s` (and 50 ms), whatever the server does. A connection that is lost or silent fails all its calls with
Fault(LIMITER_UNAVAILABLE), as whether they ran can't be known, and is made anew with growing, jittered pauses; calls
made meanwhile fail at once. So is one to a server that says it is a replica by now. Any other error reply is a
RedisError on that one call's future.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import hiredis

from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.redis_address import RedisAddress, address_of

Word = bytes | str | int

UNSENT_BYTES = 16 * 1024 * 1024
"""Most bytes that wait for a slow server before further calls fail at once."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
STALL_GRACE_S = 0.05

NO_PRIMARY = frozenset({"READONLY", "MASTERDOWN"})
"""Error replies of a server that is a replica by now: its calls belong to another."""


class RedisError(Exception):
    """An error reply: its first word (`NOSCRIPT`, `WRONGTYPE`, `LOADING`, `READONLY`) and its whole text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    @classmethod
    def of(cls, text: str) -> "RedisError":
        """The error that a reply's text means."""
        return cls(text.partition(" ")[0], text)


class RedisLink:
    """One pipelined connection to a Redis server that mends itself.

    `server` is an address, or a URL of one server as in `redis_address`; raises ValueError for one that can't be
    understood. Made and used inside one loop. `at_connect` are calls made on every new connection, whose errors don't
    matter. `find` is asked before every connection where the server is now; who is found has to be a primary.
    `timeouts` counts the calls that were not answered in time.
    """

    apart = False

    def __init__(
        self,
        server: str | RedisAddress,
        *,
        timeout_s: float = 1.0,
        client_name: str = "tollway",
        at_connect: Sequence[tuple[Word, ...]] = (),
        find: Callable[[], Awaitable[RedisAddress]] | None = None,
    ) -> None:
        self._address = address_of(server) if isinstance(server, str) else server
        self._find = find
        self._timeout_s = timeout_s
        self._client_name = client_name
        self._at_connect = at_connect
        self._wire: _Wire | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None
        self._trouble = "the link was not opened"
        self.timeouts = 0

    @property
    def connected(self) -> bool:
        """Whether a call would be sent now."""
        return self._wire is not None and self._wire.trouble is None

    async def open(self) -> None:
        """Connect. Raises Fault(LIMITER_UNAVAILABLE) where the first try fails, and goes on trying."""
        if self._first is None:
            self._first = asyncio.get_running_loop().create_future()
            self._keeper = asyncio.create_task(self._keep(self._first), name=f"redis link {self._address}")
        await asyncio.shield(self._first)

    def call(self, *words: Word) -> "asyncio.Future[Any]":
        """Send one command; the future holds its reply: bytes, int, None or a list of these."""
        wire = self._wire
        return failed(self._trouble) if wire is None else wire.send(words, None)

    def evaluate(self, sha: str, text: bytes, words: Sequence[Word]) -> "asyncio.Future[Any]":
        """Run a script by its digest, or by its text where the server doesn't know it, all on one future."""
        wire = self._wire
        if wire is None:
            return failed(self._trouble)
        return wire.send(("EVALSHA", sha, *words), ("EVAL", text, *words))

    async def close(self) -> None:
        """Send what is queued, fail what is pending, and stay closed. May be called again."""
        self._trouble = "the link is closed"
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._first is not None and not self._first.done():
            set_fault(self._first, self._trouble)

    async def _keep(self, first: "asyncio.Future[None]") -> None:
        """Hold one connection at a time until cancelled."""
        failures = 0
        while True:
            try:
                failures = 0 if await self._hold(first) else failures + 1
            except (OSError, RedisError, Fault) as error:
                failures += 1
                self._trouble = f"no connection to Redis at {self._address}: {_text(error)}"
                if not first.done():
                    set_fault(first, self._trouble)
            longest_s = min(FIRST_PAUSE_S * 2 ** min(failures, 10), LONGEST_PAUSE_S)
            await asyncio.sleep(random.uniform(0, longest_s))  # noqa: S311  # jitter is no secret

    async def _hold(self, first: "asyncio.Future[None]") -> bool:
        """Connect, greet, and serve calls until the connection is lost; whether that was to a primary."""
        if self._find is not None:
            self._address = await self._find()
        wire = await self._connect()
        try:
            await self._greet(wire)
            self._wire = wire
            if not first.done():
                first.set_result(None)
            self._trouble = await wire.lost
            return not wire.demoted
        finally:
            self._wire = None
            self.timeouts += wire.overdue
            wire.close(self._trouble)

    async def _connect(self) -> "_Wire":
        loop, address = asyncio.get_running_loop(), self._address
        wire = _Wire(loop, self._timeout_s)
        async with asyncio.timeout(self._timeout_s):
            if address.path:
                await loop.create_unix_connection(lambda: wire, address.path)
            else:
                await loop.create_connection(lambda: wire, address.host, address.port, ssl=address.ssl_context)
        return wire

    async def _greet(self, wire: "_Wire") -> None:
        """Log in, choose the database, and prove by a reply that the server is awake."""
        address = self._address
        greeting: list[tuple[Word, ...]] = []
        if address.username:
            greeting.append(("AUTH", address.username, address.password))
        elif address.password:
            greeting.append(("AUTH", address.password))
        if address.database:
            greeting.append(("SELECT", address.database))
        greeting.append(("CLIENT", "SETNAME", self._client_name))
        if self._find is not None:
            greeting.append(("ROLE",))
        replies = await asyncio.gather(*[wire.send(words, None) for words in greeting], return_exceptions=True)
        for reply in replies:
            # A user who may neither give a name nor ask the role may do all else.
            if isinstance(reply, BaseException) and not (isinstance(reply, RedisError) and reply.code == "NOPERM"):
                raise reply
        if self._find is not None and isinstance(replies[-1], list) and replies[-1][0] != b"master":
            raise Fault(LIMITER_UNAVAILABLE, f"the server is no master: {replies[-1][0].decode()}")
        # What the server forbids here, it is asked for again where it is needed.
        await asyncio.gather(*[wire.send(words, None) for words in self._at_connect], return_exceptions=True)


class _Wire(asyncio.Protocol):
    """One connection's bytes: packs calls, joins a turn's calls into one write, hands replies to futures in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self.lost: asyncio.Future[str] = loop.create_future()
        self.trouble: str | None = None
        self.demoted = False
        self.overdue = 0
        self._loop = loop
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader(replyError=RedisError.of)
        self._pending: deque[tuple[float, asyncio.Future[Any], tuple[Word, ...] | None]] = deque()
        self._queued: list[bytes] = []
        self._queued_bytes = 0
        self._paused = False
        self._sweeper: asyncio.TimerHandle | None = None

    def send(self, words: tuple[Word, ...], unless_known: tuple[Word, ...] | None) -> "asyncio.Future[Any]":
        """Queue a call. `unless_known` is sent in its place where the server answers NOSCRIPT."""
        if self.trouble is not None:
            return failed(self.trouble)
        if self._paused or self._queued_bytes > UNSENT_BYTES:
            return failed("Redis takes calls slower than they come")
        future = self._loop.create_future()
        self._enqueue(words, future, unless_known)
        return future

    def _enqueue(
        self, words: tuple[Word, ...], future: "asyncio.Future[Any]", unless_known: tuple[Word, ...] | None
    ) -> None:
        packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # hiredis's stub means a one-word tuple
        if not self._queued:
            self._loop.call_soon(self._flush)
        self._queued.append(packed)
        self._queued_bytes += len(packed)
        self._pending.append((self._loop.time(), future, unless_known))
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._timeout_s, self._sweep)

    def _flush(self) -> None:
        queued = self._queued
        if queued and self.trouble is None:
            self._transport.write(queued[0] if len(queued) == 1 else b"".join(queued))
        self._queued = []
        self._queued_bytes = 0

    def _sweep(self, grace_given: bool = False) -> None:
        """Give up on the connection where the oldest call is overdue; one timer serves all calls."""
        self._sweeper = None
        if not self._pending:
            return
        overdue_s = self._loop.time() - self._pending[0][0] - self._timeout_s
        if overdue_s < 0:
            self._sweeper = self._loop.call_later(-overdue_s, self._sweep)
        elif not grace_given:
            # Where the loop itself stood still, the call may have left only now.
            self._sweeper = self._loop.call_later(STALL_GRACE_S, self._sweep, True)
        else:
            self.overdue = len(self._pending)
            self._fail(f"Redis did not answer within {self._timeout_s:g} s")
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES)

    def data_received(self, data: bytes) -> None:
        reader, pending = self._reader, self._pending
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                _, future, unless_known = pending.popleft()
                if future.done():
                    continue
                if not isinstance(reply, RedisError):
                    future.set_result(reply)
                elif unless_known is not None and reply.code == "NOSCRIPT":
                    self._enqueue(unless_known, future, None)
                elif reply.code in NO_PRIMARY:
                    set_fault(future, str(reply))
                    self._leave_replica(str(reply))
                else:
                    future.set_exception(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self._fail(f"Redis sent what is no reply: {_text(error)}")
            self._transport.abort()

    def _leave_replica(self, told: str) -> None:
        self.demoted = True
        self._fail(f"the server is a replica: {told}")
        self._transport.abort()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection to Redis was lost: {_text(exc)}" if exc else "Redis closed the connection")

    def close(self, trouble: str) -> None:
        """Send what is queued, then let go."""
        self._flush()
        self._fail(trouble)
        self._transport.close()

    def _fail(self, trouble: str) -> None:
        if self.trouble is not None:
            return
        self.trouble = trouble
        if self._sweeper is not None:
            self._sweeper.cancel()
        for _, future, _ in self._pending:
            if not future.done():
                set_fault(future, trouble)
        self._pending.clear()
        if not self.lost.done():
            self.lost.set_result(trouble)


def failed(trouble: str) -> "asyncio.Future[Any]":
    """A future that holds Fault(LIMITER_UNAVAILABLE)."""
    future = asyncio.get_running_loop().create_future()
    set_fault(future, trouble)
    return future


def set_fault(future: "asyncio.Future[Any]", trouble: str) -> None:
    """Fail a future with Fault(LIMITER_UNAVAILABLE)."""
    future.set_exception(Fault(LIMITER_UNAVAILABLE, trouble))
    # Looked at here, so that a caller who left gives no "exception was never retrieved".
    future.exception()


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
