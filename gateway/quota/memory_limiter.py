"""The limiter in plain Python: the reference model that `lua/*.lua` is measured against.

Promises the same decisions and the same counts as the scripts, for the same calls at the same times. Holds everything
in memory and loses it with the process; never unavailable; not shared between processes. Verbs run to their end
without an await, so each is atomic within its loop.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from zlib import crc32

import msgspec

from gateway.domain.decisions import (
    Admitted,
    Counter,
    Decision,
    Line,
    Missing,
    Reservation,
    Settlement,
    Skewed,
    Stale,
    judge,
)
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault

GRACE_S = 86_400
"""How long an account's state outlives the window that made it live."""

FLUSHED_POLL_S = 0.02


class _State(msgspec.Struct):
    """An account's live state. `counters`: by limit name, the window's start in Unix seconds and what is used in it."""

    version: int
    running: int
    counters: dict[str, tuple[int, int]]
    expires_s: int
    hydrated_ms: int


class _Hold(msgspec.Struct, frozen=True):
    """One reservation. `lines`: by limit name, the start of the window it is held in and the amount held."""

    account_id: str
    lease_ends_us: int
    lines: dict[str, tuple[int, int]]


class MemoryLimiter:
    """A `Limiter` (gateway/quota/limiter.py). `now_us` is its clock, in Unix microseconds.

    `events` holds what was settled, by partition and entry number; whoever takes an entry deletes it.
    """

    def __init__(self, *, partitions: int = 8, now_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self.clock_offset_ms = 0
        self.events: dict[int, dict[int, bytes]] = defaultdict(dict)
        self._partitions = partitions
        self._now_us = now_us
        self._states: dict[str, _State] = {}
        self._marks: dict[str, str] = {}
        self._holds: dict[str, _Hold] = {}
        self._entry_numbers = count(1)

    async def reserve(self, asked: Reservation) -> Decision:
        """See `Limiter.reserve`."""
        now_us = self._now()
        state = self._state(asked.account_id, now_us)
        if state is None:
            return Missing()
        if state.version > asked.version:
            return Stale(state.version)
        if any(not line.start_s <= now_us // 1_000_000 < line.end_s for line in asked.lines):
            return Skewed(now_us // 1000)
        if any(line.name not in state.counters for line in asked.lines):
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
        state = self._state(settlement.account_id, self._now())
        hold = self._holds.pop(settlement.request_id, None)
        rebuilt = state is not None and 0 < settlement.admitted_ms < state.hydrated_ms
        if settlement.event and settlement.again and hold is None and rebuilt:
            del self._states[settlement.account_id]
            state = None
        if settlement.event:
            number = next(self._entry_numbers)
            self.events[self._partition(settlement.account_id)][number] = settlement.event
            if state is None:
                self._marks[settlement.account_id] = str(number)
        if state is not None and hold is not None:
            state.running = max(0, state.running - 1)
        if state is not None and (hold is not None or not settlement.again):
            held_lines = {} if hold is None else hold.lines
            for name, start_s, amount in settlement.amounts:
                held_start_s, held = held_lines.get(name, (start_s, 0))
                stored_start_s, used = state.counters.get(name, (None, 0))
                if stored_start_s == held_start_s:
                    state.counters[name] = held_start_s, max(0, used - held + amount)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

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
            for name, (start_s, amount) in hold.lines.items():
                if name in used and used[name][0] == start_s:
                    used[name] = start_s, used[name][1] + amount
        self._states[account_id] = _State(version, len(holds), used, expires_s, self._now() // 1000)
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

    def forget(self, account_id: str) -> None:
        """Lose an account's state and mark, as an eviction from Redis would. Its holds live on."""
        self._states.pop(account_id, None)
        self._marks.pop(account_id, None)

    def _admit(self, asked: Reservation, state: _State, counters: list[tuple[int, int]], now_us: int) -> Admitted:
        lines = {}
        for line, (start_s, used) in zip(asked.lines, counters, strict=True):
            if state.counters[line.name][0] < start_s:
                state.expires_s = max(state.expires_s, max(line.end_s for line in asked.lines) + GRACE_S)
            state.counters[line.name] = start_s, used + line.amount
            lines[line.name] = start_s, line.amount
        state.running += 1
        self._holds[asked.request_id] = _Hold(asked.account_id, now_us + asked.lease_ms * 1000, lines)
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
        return crc32(account_id.encode()) % self._partitions


def _running_counter(state: _State, line: Line) -> tuple[int, int]:
    """Start and count of the window that a line counts in: its own, unless a later one is known already."""
    start_s, used = state.counters[line.name]
    return (line.start_s, 0) if start_s < line.start_s else (start_s, used)
