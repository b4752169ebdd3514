"""The limiter on Redis: `lua/*.lua`, called in batches. The contract is `gateway/quota/limiter.py`.

Promises: one round trip for a decision; a reservation whose answer never came is given back once Redis answers again;
a settlement is repeated until Redis takes it. Fails with Fault(LIMITER_UNAVAILABLE) and never waits longer than the
link's time-out for one try.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import msgspec

from gateway.domain.decisions import (
    Admitted,
    Counter,
    Decision,
    Extension,
    Extent,
    Missing,
    Renewal,
    Reservation,
    Settlement,
    Skewed,
    Stale,
    judge,
)
from gateway.domain.faults import INTERNAL, LIMITER_UNAVAILABLE, Fault
from gateway.quota.batch import Batch, Reply
from gateway.quota.breaker import Breaker
from gateway.quota.hold import charges, differences, pack_extension, pack_hold, pack_renewal, read_hold
from gateway.quota.keys import Keyspace, era_of
from gateway.quota.outage import Outage
from gateway.quota.redis_links import Link
from gateway.quota.redis_reaping import RedisReaping
from gateway.quota.resp import RedisError, Word
from gateway.quota.scripts import load_script, run
from gateway.telemetry.log import log

_pack = msgspec.msgpack.Encoder().encode

ADMITTED, REFUSED, STALE, MISSING, SKEWED = 1, 0, 2, 3, 4

FLUSHED_POLL_S = 0.02
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
SHARD_LOST_AFTER = 5
"""Failed tries of a settlement after which a Cluster's shard is taken for lost."""

TOLD_EVERY = 10
"""Failed tries of one settlement between two lines in the log."""


class RedisLimiter:
    """A `Limiter` over one open link, made inside the loop that uses it.

    `now_us` replaces Redis TIME by a clock of the caller's own. `failures` calls in a row without an answer open
    `breaker`; while it is open, nothing is sent but its probes, and `outage` takes the settlements.
    """

    def __init__(
        self,
        link: Link,
        *,
        namespace: str = "tw",
        partitions: int = 8,
        now_us: Callable[[], int] | None = None,
        failures: int = 3,
        longest_pause_s: float = 2.0,
        outage: Outage | None = None,
    ) -> None:
        self.clock_offset_ms = 0
        self.eras: tuple[str, ...] = ()
        self.breaker = Breaker(
            # A write: a replica or a server without memory would answer a reading.
            lambda: link.call("SET", f"{namespace}:probe", 1, "PX", 1000),
            failures=failures,
            longest_pause_s=longest_pause_s,
        )
        self._link = link
        self._now_us = now_us
        self._keyspace = Keyspace(namespace, partitions)
        self._loop = asyncio.get_running_loop()
        verbs = "reserve", "settle", "late", "correct", "renew", "extend"
        self._batches = [Batch(link, verb, self._tell_time, now_us, self.breaker) for verb in verbs]
        self._reserves, self._settles, self._lates, self._corrections, self._renewals, self._extensions = self._batches
        self._reaping = RedisReaping(link, self._keyspace, now_us)
        self._unsettled: dict[str, _Attempt] = {}
        self._outage = outage
        if outage is not None:
            outage.withdraw = self._withdraw

    @property
    def unsettled(self) -> int:
        """Settlements that Redis has not confirmed yet."""
        return len(self._unsettled)

    @property
    def script_runs(self) -> int:
        """Script runs so far: each is one call to Redis, whatever it carried."""
        return sum(batch.runs for batch in self._batches)

    @property
    def now_ms(self) -> int:
        """See `Limiter.now_ms`."""
        return time.time_ns() // 1_000_000 + self.clock_offset_ms

    async def reserve(self, asked: Reservation) -> Decision:
        """See `Limiter.reserve`."""
        self.breaker.check()
        arrival: asyncio.Future[Reply] = self._loop.create_future()
        self._reserves.call(self._keyspace.of(asked.account_id), (pack_hold(asked),), partial(_arrive, arrival))
        try:
            reply = await arrival
        except asyncio.CancelledError:
            self._give_back(asked)
            raise
        if isinstance(reply, Fault):
            self._give_back(asked)
            raise reply
        return _decision(asked, reply[0] // 1000, reply[1])

    def settle(self, settlement: Settlement) -> "asyncio.Future[None]":
        """See `Limiter.settle`."""
        attempt = _Attempt(settlement, self._loop.create_future())
        if self._outage is not None and self._outage.settle(settlement):
            attempt.done.set_result(None)
            return attempt.done
        self._unsettled[settlement.request_id] = attempt
        self._try_settle(attempt)
        return attempt.done

    async def extend(self, extension: Extension) -> Extent:
        """See `Limiter.extend`."""
        self.breaker.check()
        arrival: asyncio.Future[Reply] = self._loop.create_future()
        keys = self._keyspace.of(extension.account_id)
        self._extensions.call(keys, (pack_extension(extension),), partial(_arrive, arrival))
        reply = await arrival
        if isinstance(reply, Fault):
            raise reply
        return Extent(reply[1])

    async def renew(self, renewals: Sequence[Renewal]) -> None:
        """See `Limiter.renew`."""
        replies: list[asyncio.Future[Reply]] = []
        for renewal in renewals:
            arrival: asyncio.Future[Reply] = self._loop.create_future()
            keys = self._keyspace.of(renewal.account_id)
            self._renewals.call(keys, (pack_renewal(renewal),), partial(_arrive, arrival))
            replies.append(arrival)
        for reply in await asyncio.gather(*replies):
            if isinstance(reply, Fault):
                raise reply

    async def reap(self) -> int:
        """See `Limiter.reap`."""
        # In one write with the looks for what is due.
        eras = self._look()
        try:
            return await self._reaping.reap(self.clock_offset_ms)
        finally:
            self._hear(await eras)

    async def hear(self) -> None:
        """Learn the eras, where the server answers; `reap` does the same."""
        self._hear(await self._look())

    async def drain(self, patience_s: float) -> int:
        """Wait until every settlement is confirmed, at most `patience_s`; how many were not."""
        if self._unsettled:
            await asyncio.wait([attempt.done for attempt in self._unsettled.values()], timeout=patience_s)
        return len(self._unsettled)

    async def flushed_mark(self, account_id: str, patience_s: float) -> str:
        """See `Limiter.flushed_mark`."""
        try:
            return await self._flushed_mark(account_id, patience_s)
        except RedisError as error:
            raise Fault(LIMITER_UNAVAILABLE, str(error)) from error

    async def hydrate(
        self, account_id: str, version: int, counters: tuple[Counter, ...], expires_s: int, mark: str
    ) -> bool:
        """See `Limiter.hydrate`."""
        call: list[str | int] = [account_id, version, expires_s, mark]
        for counter in counters:
            call += (counter.name, counter.start_s, counter.used)
        keys = self._keyspace.of(account_id)
        done, *era = await self._run("hydrate", (*keys, keys.era), _pack(call), secrets.token_hex(8))
        if era:
            # Heard at once: a settlement that is repeated without an era has its account rebuilt.
            eras = list(self.eras or ("",) * self._keyspace.partitions)
            eras[self._keyspace.partition(account_id)] = era[0].decode()
            self.eras = tuple(eras)
        return bool(done)

    async def peek(self, account_id: str) -> tuple[int, int, dict[str, tuple[int, int]]] | None:
        """See `Limiter.peek`."""
        reply = await self._run("peek", (self._keyspace.of(account_id).account,))
        if not reply:
            return None
        fields = {name.decode(): int(value) for name, value in zip(reply[::2], reply[1::2], strict=True)}
        limits = {name[2:]: (start_s, fields["u:" + name[2:]]) for name, start_s in fields.items() if name[:2] == "s:"}
        return fields["v"], fields.get("n", 0), limits

    async def bump(self, account_id: str, version: int) -> None:
        """See `Limiter.bump`."""
        await self._run("bump", (self._keyspace.of(account_id).account,), version)

    async def forget(self, account_id: str) -> None:
        """See `Limiter.forget`."""
        await self._run("forget", (self._keyspace.of(account_id).account,), f"forgotten {secrets.token_hex(8)}")

    async def _flushed_mark(self, account_id: str, patience_s: float) -> str:
        self.breaker.check()
        keys = self._keyspace.of(account_id)
        mark, newest = await asyncio.gather(
            self._link.call("HGET", keys.account, "x"), self._link.call("XREVRANGE", keys.events, "+", "-", "COUNT", 1)
        )
        if newest:
            deadline_s = self._loop.time() + patience_s
            while await self._link.call("XRANGE", keys.events, "-", newest[0][0], "COUNT", 1):
                if self._loop.time() > deadline_s:
                    raise Fault(LIMITER_UNAVAILABLE, f"usage of account {account_id} is not in the ledger yet")
                await asyncio.sleep(FLUSHED_POLL_S)
        return mark.decode() if mark else ""

    def _try_settle(self, attempt: "_Attempt") -> None:
        settlement = attempt.settlement
        if attempt.withdrawn:
            return None
        if self.breaker.open:
            return None if self._journaled(attempt) else self._try_later(attempt)
        again = settlement.again or attempt.sent
        attempt.sent = True
        lines = chain.from_iterable(settlement.amounts)
        era = era_of(settlement.eras, settlement.account_id) if again else ""
        attempt.packed = _pack((settlement.request_id, int(again), era, *lines))
        keys = self._keyspace.of(settlement.account_id)
        return self._settles.call(keys, (attempt.packed, settlement.event), partial(self._settled, attempt))

    def _settled(self, attempt: "_Attempt", reply: Reply) -> None:
        if isinstance(reply, Fault):
            self._fail(attempt, reply)
        elif reply[1]:
            self._confirm(attempt)
        else:
            words = attempt.packed, attempt.settlement.event
            keys = self._keyspace.of(attempt.settlement.account_id)
            names = *keys, keys.marker(attempt.settlement.request_id), keys.era
            self._lates.call(names, words, partial(self._settled_late, attempt))

    def _settled_late(self, attempt: "_Attempt", reply: Reply) -> None:
        if isinstance(reply, Fault):
            self._fail(attempt, reply)
        elif isinstance(reply[1], list):
            self._correct(attempt, reply[1][0])
        else:
            self._confirm(attempt)

    def _correct(self, attempt: "_Attempt", reaped: bytes) -> None:
        """Charge what the reap got wrong. The marker goes with the first correction that Redis takes."""
        settlement = attempt.settlement
        try:
            hold = read_hold(reaped)
            lines, event = differences(settlement, charges(hold.lines, hold.about), hold.about)
        except msgspec.MsgspecError as error:
            self._fail(attempt, Fault(LIMITER_UNAVAILABLE, f"a hold that was reaped can't be read: {error}"))
            return
        call: list[str | int] = [settlement.request_id]
        for line in lines:
            call += line
        keys = self._keyspace.of(settlement.account_id)
        names = *keys, keys.marker(settlement.request_id)
        self._corrections.call(names, (_pack(call), event), partial(self._corrected, attempt))

    def _corrected(self, attempt: "_Attempt", reply: Reply) -> None:
        if isinstance(reply, Fault):
            self._fail(attempt, reply)
        else:
            self._confirm(attempt)

    def _confirm(self, attempt: "_Attempt") -> None:
        if self._unsettled.get(attempt.settlement.request_id) is attempt:
            del self._unsettled[attempt.settlement.request_id]
        if not attempt.done.done():
            attempt.done.set_result(None)

    def _fail(self, attempt: "_Attempt", fault: Fault) -> None:
        attempt.number += 1
        if attempt.number % TOLD_EVERY == 0:
            request_id = attempt.settlement.request_id
            log.error("settle_fails", request_id=request_id, attempts=attempt.number, detail=fault.internal)
        # A Cluster has no breaker: a shard that is away is known by this alone.
        if self._link.apart and attempt.number >= SHARD_LOST_AFTER and self._journaled(attempt):
            return
        self._try_later(attempt)

    def _journaled(self, attempt: "_Attempt") -> bool:
        """Leave a settlement to the journal; False where it can't be."""
        if self._outage is None or not self._outage.take_over(attempt.settlement, sent=attempt.sent):
            return False
        self._confirm(attempt)
        return True

    def _try_later(self, attempt: "_Attempt") -> None:
        pause_s = min(FIRST_PAUSE_S * 2 ** min(attempt.number, 10), LONGEST_PAUSE_S)
        self._loop.call_later(pause_s, self._try_settle, attempt)

    async def _run(self, verb: str, names: tuple[bytes, ...], *words: Word) -> Any:
        self.breaker.check()
        try:
            return await run(self._link, load_script(verb), names, words)
        except RedisError as error:
            raise Fault(LIMITER_UNAVAILABLE, f"{verb}.lua: {error}") from error

    def _give_back(self, asked: Reservation) -> None:
        """Release what a reservation may have taken whose answer nobody heard."""
        nothing = tuple((line.name, line.start_s, 0) for line in asked.lines)
        settlement = Settlement(asked.request_id, asked.account_id, nothing, b"", again=True)
        attempt = self._unsettled[asked.request_id] = _Attempt(settlement, self._loop.create_future())
        # Not at once: the request may be admitted without Redis, and its own settlement then ends what was taken.
        self._try_later(attempt)

    def _withdraw(self, request_id: str) -> None:
        """Leave what a reservation may have taken to the settlement that is yet to come."""
        attempt = self._unsettled.pop(request_id, None)
        if attempt is not None:
            attempt.withdrawn = True

    def _look(self) -> "asyncio.Future[list[bytes | BaseException | None]]":
        """At all partitions' eras."""
        looks = [self._link.call("GET", keys.era) for keys in self._keyspace.everywhere()]
        return asyncio.gather(*looks, return_exceptions=True)

    def _hear(self, eras: Sequence[bytes | BaseException | None]) -> None:
        """Note the partitions' eras. Where one was not heard, the old ones stand: whoever knows less trusts less."""
        if not any(isinstance(era, BaseException) for era in eras):
            self.eras = tuple([era.decode() if isinstance(era, bytes) else "" for era in eras])

    def _tell_time(self, now_us: int) -> None:
        self.clock_offset_ms = now_us // 1000 - time.time_ns() // 1_000_000


class _Attempt(msgspec.Struct):
    """A settlement on its way; `number` tries have failed, `packed` is the call of the running one.

    `sent` says that Redis may have taken it; `withdrawn` that it shall not be tried again.
    """

    settlement: Settlement
    done: "asyncio.Future[None]"
    number: int = 0
    sent: bool = False
    withdrawn: bool = False
    packed: bytes = b""


def _arrive(arrival: "asyncio.Future[Reply]", reply: Reply) -> None:
    if not arrival.done():
        arrival.set_result(reply)


def _decision(asked: Reservation, now_ms: int, entry: list[int]) -> Decision:
    """The decision that a reply of reserve.lua means."""
    code = entry[0]
    if code == ADMITTED:
        return Admitted(now_ms, tuple(entry[2:]), entry[1])
    if code == REFUSED:
        refused = judge(asked, now_ms, tuple(entry[2:]), entry[1])
        if refused is None:
            raise Fault(INTERNAL, f"reserve.lua refused what fits: {entry}")
        return refused
    if code == STALE:
        return Stale(entry[1])
    return Missing() if code == MISSING else Skewed(now_ms, entry[1])
