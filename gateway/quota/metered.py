"""Requests that apps run by themselves, between reserve and settle: what Redis knows of one, whichever gateway asks.

The first report of a request's end is kept for a day under its id and stands, however often and wherever it is told
again. It is charged by `lua/replay.lua` under a bit of its own: once, in one step with the hold or the marker that it
finds, so that whoever died half-way is finished by the next who asks. Fails with Fault(LIMITER_UNAVAILABLE).
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.domain.decisions import Settlement
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.domain.usage import UsageEvent
from gateway.quota.hold import Charge, Hold, charges, read_hold
from gateway.quota.journal_segment import JournalEntry, Kind
from gateway.quota.keys import Keyspace, era_of
from gateway.quota.redis_limiter import RedisLimiter
from gateway.quota.redis_links import Link
from gateway.quota.redis_replay import Numbered, RedisReplay
from gateway.quota.resp import RedisError, Word

REPORT_TTL_S = 86_400
BIT_TTL_S = REPORT_TTL_S + 3_600
"""Longer than the report, which a missing bit would let in again."""

_pack = msgspec.msgpack.Encoder().encode
_event = msgspec.msgpack.Decoder(UsageEvent).decode


class Trace(msgspec.Struct, frozen=True):
    """What there is of a request: its hold and when its lease ends (Unix milliseconds); the hold as it was reaped; what
    was reported at its end, and whether that is charged; the limiter's eras as they were known before that was read.
    """  # noqa: D205

    hold: Hold | None = None
    lease_ends_ms: int = 0
    reaped: Hold | None = None
    report: UsageEvent | None = None
    charged: bool = False
    eras: tuple[str, ...] = ()

    @property
    def begun(self) -> Hold | None:
        """What is held of it, or was until it was reaped."""
        return self.hold or self.reaped


class MeteredRequests:
    """Over one open link; `limiter` is the one that takes the reservations."""

    def __init__(self, link: Link, keyspace: Keyspace, limiter: RedisLimiter) -> None:
        self._link = link
        self._keyspace = keyspace
        self._limiter = limiter
        self._breaker = limiter.breaker
        self._replay = RedisReplay(link, keyspace, limiter.breaker)

    async def find(self, account_id: str, request_id: str) -> Trace:
        """What is known of a request of the account."""
        keys, eras = self._keyspace.of(account_id), self._limiter.eras
        # In this order, on one connection: what leaves one place is written in a later one before.
        hold, lease_us, reaped, report, bit = await self._call(
            ("HGET", keys.holds, request_id),
            ("ZSCORE", keys.leases, request_id),
            ("GET", keys.marker(request_id)),
            ("GET", keys.reported(request_id)),
            ("GET", keys.bits(request_id)),
        )
        try:
            return Trace(
                None if hold is None else read_hold(hold),
                int(float(lease_us or 0)) // 1000,
                None if reaped is None else read_hold(reaped),
                None if report is None else _event(report),
                bool(bit),
                eras,
            )
        except msgspec.MsgspecError as error:
            raise Fault(LIMITER_UNAVAILABLE, f"request {request_id} can't be read: {error}") from error

    async def report(self, event: UsageEvent) -> UsageEvent:
        """Keep the report of a request's end, unless there is one; the one that stands."""
        key = self._keyspace.of(event.account_id).reported(event.request_id)
        taken, standing = await self._call(
            ("SET", key, _pack(event), "EX", REPORT_TTL_S, "NX"),
            ("GET", key),
        )
        return event if taken or standing is None else _event(standing)

    async def charge(self, event: UsageEvent, held: Iterable[Charge], trace: Trace) -> None:
        """Put the usage that the event tells in the place of what is held on these lines, and the event on its stream.

        Where the trace has the report already, an earlier try may have done so.
        """
        amounts = tuple(charges(held, event))
        # Whoever tries again has found the report: nothing was lost since it was written, before the first try.
        era = era_of(trace.eras, event.account_id)
        told = event.request_id, event.account_id, event.admitted_ms
        entry = JournalEntry(Kind.SETTLED, *told, amounts, _pack(event), era)
        self._breaker.check()
        again = trace.report is not None
        for poison in await self._replay.settle([Numbered(entry, event.request_id, 0, again)]):
            raise Fault(LIMITER_UNAVAILABLE, poison.reason)
        keys = self._keyspace.of(event.account_id)
        hold, _ = await self._call(
            ("HGET", keys.holds, event.request_id),
            ("EXPIRE", keys.bits(event.request_id), BIT_TTL_S),
        )
        if hold is not None:
            self.drop(event.account_id, read_hold(hold))

    def drop(self, account_id: str, hold: Hold) -> None:
        """Give back a hold that was made once its request was charged: a reserve that another overtook."""
        nothing = tuple((name, start_s, 0) for name, start_s, _ in hold.lines)
        self._limiter.settle(Settlement(hold.request_id, account_id, nothing, b"", again=True))

    async def _call(self, *calls: tuple[Word, ...]) -> list[Any]:
        self._breaker.check()
        try:
            replies: list[Any] = await asyncio.gather(*[self._link.call(*words) for words in calls])
        except RedisError as error:
            raise Fault(LIMITER_UNAVAILABLE, f"metering: {error}") from error
        return replies
