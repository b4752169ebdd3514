"""The limiter in plain Python: the reference model that `lua/*.lua` is measured against.

Promises the same decisions and the same counts as the scripts, for the same calls at the same times. Holds everything
in memory and loses it with the process; never unavailable; not shared between processes. Verbs run to their end
without an await, so each is atomic within its loop.
"""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import count

import msgspec

from gateway.domain.decisions import (
    Admitted,
    Counter,
    Decision,
    Extension,
    Extent,
    Line,
    Missing,
    Renewal,
    Reservation,
    Settlement,
    Skewed,
    Stale,
    judge,
)
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.domain.usage import UsageEvent
from gateway.quota.hold import Charge, charges, differences
from gateway.quota.keys import era_of, partition_of

GRACE_S = 86_400
"""How long an account's state outlives the window that made it live."""

FLUSHED_POLL_S = 0.02


class _State(msgspec.Struct):
    """An account's live state. `counters`: by limit name, the window's start in Unix seconds and what is used in it."""

    version: int
    running: int
    counters: dict[str, tuple[int, int]]
    expires_s: int


class _Hold(msgspec.Struct):
    """One reservation; where it was reaped, `lines` are what that charged."""

    account_id: str
    lease_ends_us: int
    lines: list[Charge]
    about: UsageEvent | None


class MemoryLimiter:
    """A `Limiter` (gateway/quota/limiter.py). `now_us` is its clock, in Unix microseconds.

    `events` holds what was settled, by partition and entry number; whoever takes an entry deletes it.
    """

    def __init__(self, *, partitions: int = 8, now_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self.clock_offset_ms = 0
        self._partitions = partitions
        self._now_us = now_us
        self._entry_numbers = count(1)
        self.lose_all()

    def lose_all(self) -> None:
        """Lose everything, as a flushed Redis would."""
        self.eras = ("",) * self._partitions
        self.events: dict[int, dict[int, bytes]] = defaultdict(dict)
        self._states: dict[str, _State] = {}
        self._marks: dict[str, str] = {}
        self._holds: dict[str, _Hold] = {}
        self._reaped: dict[str, _Hold] = {}

    @property
    def now_ms(self) -> int:
        """See `Limiter.now_ms`."""
        return time.time_ns() // 1_000_000 + self.clock_offset_ms

    async def reserve(self, asked: Reservation) -> Decision:
        """See `Limiter.reserve`."""
        now_us = self._now()
        state = self._state(asked.account_id, now_us)
        if state is None:
            return Missing()
        if state.version > asked.version:
            return Stale(state.version)
        begun = [state.counters.get(line.name, (None, 0))[0] for line in asked.lines]
        for line, start_s in zip(asked.lines, begun, strict=True):
            if start_s != line.start_s and start_s is not None and start_s > now_us // 1_000_000:
                return Skewed(now_us // 1000, start_s)
            if now_us // 1_000_000 >= line.end_s or (now_us // 1_000_000 < line.start_s != start_s):
                return Skewed(now_us // 1000)
            if start_s is None:
                del self._states[asked.account_id]
                return Missing()
        state.version = asked.version
        counters = [_running_counter(state, line) for line in asked.lines]
        used = tuple(count for _, count in counters)
        if asked.request_id in self._holds:
            return Admitted(now_us // 1000, used, state.running)
        refused = judge(asked, now_us // 1000, used, state.running)
        if refused is not None:
            return refused
        return self._admit(asked, state, counters, now_us)

    def settle(self, settlement: Settlement) -> "asyncio.Future[None]":
        """See `Limiter.settle`."""
        account_id, now_us = settlement.account_id, self._now()
        hold = self._holds.pop(settlement.request_id, None)
        reaped = self._reaped.pop(settlement.request_id, None)
        if hold is not None:
            self._write(account_id, settlement.event, now_us)
            self._release(account_id, now_us)
            held = {name: (start_s, amount) for name, start_s, amount in hold.lines}
            for name, start_s, amount in settlement.amounts:
                held_start_s, held_amount = held.get(name, (start_s, 0))
                self._charge(account_id, (name, held_start_s, amount - held_amount), now_us)
        elif reaped is not None:
            lines, event = differences(settlement, reaped.lines, reaped.about)
            self._write(account_id, event, now_us)
            for line in lines:
                self._charge(account_id, line, now_us)
        else:
            self._settle_without_hold(settlement, now_us)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def extend(self, extension: Extension) -> Extent:
        """See `Limiter.extend`."""
        hold = self._holds.get(extension.request_id)
        if hold is None:
            return Extent.GONE
        state = self._state(extension.account_id, self._now())
        if state is None:
            return Extent.MISSING
        asked = {line.name: line for line in extension.lines}
        held, counters = [], {}
        for name, start_s, amount in hold.lines:
            more = max(0, asked[name].amount - amount) if name in asked else 0
            held.append((name, start_s, amount + more))
            stored_start_s, used = state.counters.get(name, (None, 0))
            if more and stored_start_s == start_s:
                counters[name] = start_s, used + more
                if used + more > asked[name].maximum:
                    return Extent.REFUSED
        hold.lines = held
        state.counters |= counters
        return Extent.EXTENDED

    async def renew(self, renewals: Sequence[Renewal]) -> None:
        """See `Limiter.renew`."""
        now_us = self._now()
        for renewal in renewals:
            hold = self._holds.get(renewal.request_id)
            if hold is not None:
                hold.lease_ends_us = max(hold.lease_ends_us, now_us + renewal.lease_ms * 1000)
                hold.about = renewal.about

    async def reap(self) -> int:
        """See `Limiter.reap`."""
        now_us = self._now()
        due = [request_id for request_id, hold in self._holds.items() if hold.lease_ends_us <= now_us]
        for request_id in due:
            hold = self._holds.pop(request_id)
            if hold.about is not None:
                self._write(hold.account_id, msgspec.msgpack.encode(hold.about), now_us)
            self._release(hold.account_id, now_us)
            charged = charges(hold.lines, hold.about)
            for (name, start_s, amount), (_, _, held) in zip(charged, hold.lines, strict=True):
                self._charge(hold.account_id, (name, start_s, amount - held), now_us)
            hold.lines = charged
            self._reaped[request_id] = hold
        return len(due)

    async def flushed_mark(self, account_id: str, patience_s: float) -> str:
        """See `Limiter.flushed_mark`."""
        mark = self._marks.get(account_id, "")
        events = self.events[self._partition(account_id)]
        newest = max(events, default=0)
        deadline_s = time.monotonic() + patience_s
        while min(events, default=newest + 1) <= newest:
            if time.monotonic() > deadline_s:
                raise Fault(LIMITER_UNAVAILABLE, f"usage of account {account_id} is not in the ledger yet")
            await asyncio.sleep(FLUSHED_POLL_S)
        return mark

    async def hydrate(
        self, account_id: str, version: int, counters: tuple[Counter, ...], expires_s: int, mark: str
    ) -> bool:
        """See `Limiter.hydrate`."""
        if self._state(account_id, self._now()) is not None:
            return True
        if self._marks.get(account_id, "") != mark:
            return False
        holds = [hold for hold in self._holds.values() if hold.account_id == account_id]
        used = {counter.name: (counter.start_s, counter.used) for counter in counters}
        for hold in holds:
            for name, start_s, amount in hold.lines:
                if name in used and used[name][0] <= start_s:
                    used[name] = start_s, amount + (used[name][1] if used[name][0] == start_s else 0)
        self._begin_era(self._partition(account_id))
        self._states[account_id] = _State(version, len(holds), used, expires_s)
        self._marks.pop(account_id, None)
        return True

    async def peek(self, account_id: str) -> tuple[int, int, dict[str, tuple[int, int]]] | None:
        """See `Limiter.peek`."""
        state = self._state(account_id, self._now())
        return None if state is None else (state.version, state.running, dict(state.counters))

    async def bump(self, account_id: str, version: int) -> None:
        """See `Limiter.bump`."""
        state = self._state(account_id, self._now())
        if state is None:
            self._marks[account_id] = f"version {version}"
        else:
            state.version = max(state.version, version)

    async def forget(self, account_id: str) -> None:
        """See `Limiter.forget`."""
        self._states.pop(account_id, None)
        self._marks[account_id] = f"forgotten {next(self._entry_numbers)}"

    def lose(self, account_id: str) -> None:
        """Lose an account's state and mark, as an eviction from Redis would. Its holds live on."""
        self._states.pop(account_id, None)
        self._marks.pop(account_id, None)

    def _begin_era(self, partition: int) -> None:
        if not self.eras[partition]:
            self.eras = (*self.eras[:partition], secrets.token_hex(8), *self.eras[partition + 1 :])

    def _settle_without_hold(self, settlement: Settlement, now_us: int) -> None:
        """It was settled before, or its hold was lost."""
        account_id = settlement.account_id
        state = self._state(account_id, now_us)
        if settlement.again:
            unsure = era_of(settlement.eras, account_id) not in {era_of(self.eras, account_id)} - {""}
        else:
            unsure = state is not None and any(
                state.counters.get(name, (start_s, 0))[0] < start_s for name, start_s, _ in settlement.amounts
            )
        if settlement.event and unsure and state is not None:
            del self._states[account_id]
        self._write(account_id, settlement.event, now_us)
        if not settlement.again:
            for line in settlement.amounts:
                self._charge(account_id, line, now_us)

    def _write(self, account_id: str, event: bytes, now_us: int) -> None:
        if event:
            number = next(self._entry_numbers)
            self.events[self._partition(account_id)][number] = event
            if self._state(account_id, now_us) is None:
                self._marks[account_id] = str(number)

    def _release(self, account_id: str, now_us: int) -> None:
        state = self._state(account_id, now_us)
        if state is not None:
            state.running = max(0, state.running - 1)

    def _charge(self, account_id: str, more: Charge, now_us: int) -> None:
        """Add to a count whose window is still the one charged."""
        name, start_s, amount = more
        state = self._state(account_id, now_us)
        if state is not None:
            stored_start_s, used = state.counters.get(name, (None, 0))
            if stored_start_s == start_s:
                state.counters[name] = start_s, max(0, used + amount)

    def _admit(self, asked: Reservation, state: _State, counters: list[tuple[int, int]], now_us: int) -> Admitted:
        lines = []
        for line, (start_s, used) in zip(asked.lines, counters, strict=True):
            if state.counters[line.name][0] < start_s:
                state.expires_s = max(state.expires_s, max(line.end_s for line in asked.lines) + GRACE_S)
            state.counters[line.name] = start_s, used + line.amount
            lines.append((line.name, start_s, line.amount))
        state.running += 1
        self._holds[asked.request_id] = _Hold(asked.account_id, now_us + asked.lease_ms * 1000, lines, asked.about)
        after = tuple(used + line.amount for line, (_, used) in zip(asked.lines, counters, strict=True))
        return Admitted(now_us // 1000, after, state.running)

    def _state(self, account_id: str, now_us: int) -> _State | None:
        state = self._states.get(account_id)
        if state is not None and state.expires_s * 1_000_000 <= now_us:
            del self._states[account_id]
            return None
        return state

    def _now(self) -> int:
        now_us = self._now_us()
        self.clock_offset_ms = now_us // 1000 - time.time_ns() // 1_000_000
        return now_us

    def _partition(self, account_id: str) -> int:
        return partition_of(account_id, self._partitions)


def _running_counter(state: _State, line: Line) -> tuple[int, int]:
    """Start and count of the window that a line counts in: its own, unless a later one is known already."""
    start_s, used = state.counters[line.name]
    return (line.start_s, 0) if start_s < line.start_s else (start_s, used)
