"""Bandwidth: answers of an account leave no faster than its tier says, all of them together.

Promises: within a slice and `AHEAD_S` of the figure at any time, and of it over seconds; the account's connections
take turns by slices, each within about `ROUND_S`, so that none starves another; one sleep for a slice or more, none
where the tier has no figure. Slices are as large as that allows, as each costs a wake-up. The workers of a gateway pace
an account together, by a table that they share.
"""

import asyncio
from collections.abc import Callable

from gateway.edge.exchange import Exchange, Message, Send
from gateway.edge.pace_table import PaceTable, name_of

SLICE_S = 0.05
"""The time that a slice takes at most."""

ROUND_S = 0.5
"""The time in which every connection has its turn: where many wait, slices are smaller."""

AHEAD_S = 0.1
"""How far ahead of the figure bytes may leave: what is less isn't waited for."""

LATE_S = 0.05
"""How much of time that went by unused, by late timers, may be made up for."""

LEAST_SLICE_BYTES, MOST_SLICE_BYTES = 1024, 262_144
"""The most is one read of a socket, which needs no cutting."""

PRUNED_ACCOUNTS = 1024


class Bucket:
    """One account's bytes. `waiting` connections of this worker wait for their turn."""

    __slots__ = ("_name", "_table", "_workers", "byte_s", "waiting")

    def __init__(self, account_id: str, byte_s: float, table: PaceTable, workers: int) -> None:
        self._name = name_of(account_id)
        self._table = table
        self._workers = workers
        self.byte_s = byte_s
        self.waiting = 0

    def take(self, size: int, now_s: float) -> float:
        """Promise `size` bytes; how many seconds from now (loop's time) they may leave, 0 for now."""
        free_s, place = self._table.free_s, self._table.place(self._name, now_s)
        begin_s = max(free_s[place], now_s - LATE_S)
        free_s[place] = begin_s + size / self.byte_s
        ahead_s = begin_s - now_s
        return ahead_s if ahead_s >= AHEAD_S else 0.0

    @property
    def slice_bytes(self) -> int:
        """The bytes of one turn. As many connections are taken to wait at every other worker as wait here."""
        slice_s = min(SLICE_S, ROUND_S / (self.waiting * self._workers + 1))
        return min(max(int(self.byte_s * slice_s), LEAST_SLICE_BYTES), MOST_SLICE_BYTES)


class Bandwidth:
    """The buckets of this worker, by account. `clock` is monotonic, and one for all workers."""

    def __init__(self, table: PaceTable, workers: int, clock: Callable[[], float]) -> None:
        self._table = table
        self._workers = workers
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}
        self._prune_at = PRUNED_ACCOUNTS

    def bucket(self, account_id: str, byte_s: float) -> Bucket:
        """The account's bucket, from now on at the tier's figure of `byte_s`."""
        bucket = self._buckets.get(account_id)
        if bucket is None:
            if len(self._buckets) >= self._prune_at:
                self._prune()
            bucket = self._buckets[account_id] = Bucket(account_id, byte_s, self._table, self._workers)
        bucket.byte_s = byte_s
        return bucket

    def pace(self, exchange: Exchange, byte_s: float) -> None:
        """Send the exchange's answer at the account's pace, whoever sends it."""
        exchange.send = _Paced(exchange, self.bucket(exchange.record.account_id, byte_s), self._clock).send

    def _prune(self) -> None:
        """Forget those that nobody waits for: the table knows what was promised."""
        self._buckets = {account_id: bucket for account_id, bucket in self._buckets.items() if bucket.waiting}
        self._prune_at = max(PRUNED_ACCOUNTS, 2 * len(self._buckets))


class _Paced:
    """An exchange's `send`, slice by slice."""

    __slots__ = ("_bucket", "_clock", "_exchange", "_send")

    def __init__(self, exchange: Exchange, bucket: Bucket, clock: Callable[[], float]) -> None:
        self._exchange = exchange
        self._send: Send = exchange.send
        self._bucket = bucket
        self._clock = clock

    async def send(self, message: Message) -> None:
        """As ASGI has it. To a client that left nothing is sent, so nothing waits."""
        body = message.get("body", b"")
        step = self._bucket.slice_bytes
        while len(body) > step and not self._exchange.gone:
            await self._turn(step)
            rest = memoryview(body)
            await self._send({"type": "http.response.body", "body": rest[:step], "more_body": True})
            body, step = rest[step:], self._bucket.slice_bytes
            message = {**message, "body": body}
        if body and not self._exchange.gone:
            await self._turn(len(body))
        await self._send(message)

    async def _turn(self, size: int) -> None:
        bucket = self._bucket
        wait_s = bucket.take(size, self._clock())
        if wait_s:
            bucket.waiting += 1
            try:
                await asyncio.sleep(wait_s)
            finally:
                bucket.waiting -= 1
