"""Connections to one origin: opened on demand up to a cap, reused last in first out, closed when idle too long.

Whoever finds the cap reached waits in line, first come first served, at most `pool_s`. One sweep per pool looks after
every deadline. Fails with UPSTREAM_BUSY (no connection became free), UPSTREAM_REFUSED (can't connect, or not the peer
it must be), UPSTREAM_TIMEOUT (connect).
"""

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass

from gateway.domain.faults import UPSTREAM_BUSY, UPSTREAM_REFUSED, UPSTREAM_TIMEOUT, Fault
from gateway.upstream.coarse_clock import CoarseClock
from gateway.upstream.connection import Connection
from gateway.upstream.transport import Origin, Timeouts, Unsent


@dataclass(slots=True, eq=False)
class _Turn:
    """A place in the line. It gets a free connection, or None: the right to open one."""

    deadline: float
    granted: "asyncio.Future[Connection | None]"


class Pool:
    """`take` is the hot path; `acquire` is for when it gives None. Made inside a running loop."""

    def __init__(
        self,
        origin: Origin,
        timeouts: Timeouts,
        *,
        max_connections: int,
        idle_s: float,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._origin, self._timeouts, self._idle_s = origin, timeouts, idle_s
        self._max_connections = max_connections
        self._ssl_context = ssl_context
        self._loop = asyncio.get_running_loop()
        waits = (timeouts.first_byte_s, timeouts.between_bytes_s, timeouts.total_s, timeouts.pool_s, idle_s)
        self._clock = CoarseClock(self._loop.time(), min(wait for wait in waits if wait))
        self._sweeping: asyncio.TimerHandle | None = None
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []
        self._turns: deque[_Turn] = deque()
        self._opening = 0
        self._closed = False

    def take(self) -> Connection | None:
        """The connection that was freed last, if any is idle."""
        return self._idle.pop() if self._idle else None

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """A connection to use now; `fresh` prefers a new one, at the cost of an idle one where the cap is reached."""
        if self._closed:
            raise Unsent(UPSTREAM_REFUSED, "the transport is closed")
        if fresh and self._idle and self._is_full():
            self._idle[0].drop()
        while True:
            if not self._is_full():
                self._opening += 1
                return await self._open()
            connection = await self._wait_for_turn()
            if connection is None:
                return await self._open()
            if not connection.closed:
                return connection

    async def aclose(self) -> None:
        """Close every connection; exchanges under way end in a Fault, and nobody gets another connection."""
        self._closed = True
        while self._turns:
            self._refuse(self._turns.popleft(), Unsent(UPSTREAM_REFUSED, "the transport is closed"))
        for connection in tuple(self._connections):
            connection.drop()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        await asyncio.sleep(0)

    def size(self) -> tuple[int, int]:
        """Connections open, and of these idle."""
        return len(self._connections), len(self._idle)

    def _is_full(self) -> bool:
        return len(self._connections) + self._opening >= self._max_connections

    async def _open(self) -> Connection:
        """Connect. The caller has counted itself in `_opening`, which ends here."""
        self._sweep_from_now_on()
        origin, secure = self._origin, self._ssl_context
        limit_s = self._timeouts.connect_s
        opened = None
        try:
            async with asyncio.timeout(limit_s):
                _, opened = await self._loop.create_connection(
                    self._new_connection,
                    origin.host,
                    origin.port,
                    ssl=secure,
                    server_hostname=origin.host if secure else None,
                )
        except TimeoutError as error:
            raise Unsent(UPSTREAM_TIMEOUT, f"connect: no connection within {limit_s} s") from error
        except OSError as error:
            raise Unsent(UPSTREAM_REFUSED, f"connect: {error}") from error
        finally:
            self._opening -= 1
            if opened is None:
                self._grant_slot()
            elif self._closed:
                opened.drop()
            elif not opened.closed:
                self._connections.add(opened)
        return opened

    def _new_connection(self) -> Connection:
        return Connection(self._clock, self._timeouts, self._idle_s, self._on_free, self._on_gone)

    async def _wait_for_turn(self) -> Connection | None:
        self._sweep_from_now_on()
        turn = _Turn(self._clock.ahead + self._timeouts.pool_s, self._loop.create_future())
        self._turns.append(turn)
        try:
            return await turn.granted
        except asyncio.CancelledError:
            self._give_back(turn)
            raise

    def _give_back(self, turn: _Turn) -> None:
        """A turn whose owner was cancelled: take it out of the line, or pass on what it was already granted."""
        granted = turn.granted
        if granted.cancelled() or not granted.done():
            if turn in self._turns:
                self._turns.remove(turn)
        elif granted.exception() is None:
            connection = granted.result()
            if connection is None:
                self._opening -= 1
                self._grant_slot()
            elif not connection.closed:
                self._on_free(connection)

    def _on_free(self, connection: Connection) -> None:
        while self._turns:
            granted = self._turns.popleft().granted
            if not granted.done():
                granted.set_result(connection)
                return
        self._idle.append(connection)

    def _on_gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._grant_slot()

    def _grant_slot(self) -> None:
        while self._turns and not self._is_full():
            granted = self._turns.popleft().granted
            if not granted.done():
                self._opening += 1
                granted.set_result(None)

    def _refuse(self, turn: _Turn, fault: Fault) -> None:
        if not turn.granted.done():
            turn.granted.set_exception(fault)

    def _sweep_from_now_on(self) -> None:
        if self._sweeping is None:
            self._clock.advance(self._loop.time())
            self._sweeping = self._loop.call_later(self._clock.interval_s, self._sweep)

    def _sweep(self) -> None:
        self._clock.advance(self._loop.time())
        now = self._clock.now
        for connection in [c for c in self._connections if c.deadline <= now or c.last_deadline <= now]:
            connection.expire()
        while self._turns and self._turns[0].deadline <= now:
            text = f"pool: none of {self._max_connections} connections became free within {self._timeouts.pool_s} s"
            self._refuse(self._turns.popleft(), Unsent(UPSTREAM_BUSY, text))
        self._sweeping = None
        if self._connections or self._turns or self._opening:
            self._sweep_from_now_on()
