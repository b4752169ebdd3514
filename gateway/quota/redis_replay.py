"""Journal entries settled on Redis by `lua/replay.lua`, in batches.

Promises: each entry counts once, however often it is sent, as its segment keeps a bit for it; where its hold was
reaped, the difference is charged. An entry that can't be settled holds up no other. Fails with
Fault(LIMITER_UNAVAILABLE); what was settled by then stays settled.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from gateway.domain.decisions import Settlement
from gateway.domain.faults import Fault
from gateway.quota.batch import Batch, CallFault, Reply
from gateway.quota.breaker import Breaker
from gateway.quota.hold import charges, differences, read_hold
from gateway.quota.journal_segment import JournalEntry, Kind
from gateway.quota.keys import Keyspace
from gateway.quota.redis_links import Link

FRESH, UNKNOWN, REPEATED, DIFFERENCE = range(4)
"""Kinds of `lua/replay.lua`."""

_pack = msgspec.msgpack.Encoder().encode


class Numbered(msgspec.Struct, frozen=True):
    """An entry, its number in the segment, and whether it may have been sent before."""

    entry: JournalEntry
    segment: str
    number: int
    again: bool


class Poison(msgspec.Struct, frozen=True):
    """An entry that can't be settled, however often it is sent, and why."""

    one: Numbered
    reason: str


class RedisReplay:
    """Over one open link."""

    def __init__(
        self, link: Link, keyspace: Keyspace, breaker: Breaker, now_us: Callable[[], int] | None = None
    ) -> None:
        self._keyspace = keyspace
        self._batch = Batch(link, "replay", lambda _: None, now_us, breaker)

    async def settle(self, numbered: Sequence[Numbered]) -> list[Poison]:
        """Settle the entries, of which each is a settlement; those that can't be. Raises Fault(LIMITER_UNAVAILABLE)."""
        refused = await asyncio.gather(*[self._refused(one) for one in numbered])
        return [poison for poison in refused if poison is not None]

    async def _refused(self, one: Numbered) -> Poison | None:
        try:
            _, reply = await self._send(one, _kind(one), one.entry.amounts, one.entry.event)
            if isinstance(reply, list):
                await self._correct(one, reply[0])
        except CallFault as fault:
            return Poison(one, fault.internal)
        except msgspec.MsgspecError as error:
            return Poison(one, f"a hold that was reaped can't be read: {error}")
        return None

    async def _correct(self, one: Numbered, marker: bytes) -> None:
        """Raises msgspec.MsgspecError for a marker or an event that can't be read."""
        entry, hold = one.entry, read_hold(marker)
        true = Settlement(entry.request_id, entry.account_id, entry.amounts, entry.event)
        lines, event = differences(true, charges(hold.lines, hold.about), hold.about)
        await self._send(one, DIFFERENCE, lines, event)

    async def _send(
        self, one: Numbered, kind: int, amounts: Sequence[tuple[str, int, int]], event: bytes
    ) -> tuple[int, object]:
        entry = one.entry
        call: list[str | int] = [entry.request_id, kind, entry.era, one.number]
        for line in amounts:
            call += line
        keys = self._keyspace.of(entry.account_id)
        names = *keys, keys.marker(entry.request_id), keys.bits(one.segment), keys.era
        arrival: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._batch.call(names, (_pack(call), event), partial(_arrive, arrival))
        reply = await arrival
        if isinstance(reply, Fault):
            raise reply
        return reply


def _kind(one: Numbered) -> int:
    if one.entry.kind is Kind.REPEATED:
        return REPEATED
    return UNKNOWN if one.again else FRESH


def _arrive(arrival: "asyncio.Future[Reply]", reply: Reply) -> None:
    if not arrival.done():
        arrival.set_result(reply)
