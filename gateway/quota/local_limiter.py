"""Admission without Redis: this worker's share of each limit, in memory.

Promises: in one window the workers of one gateway together admit at most ⌈share · limit⌉ this way, in however many
outages, and never what would pass the limit by what this worker last heard of it. Fails with Fault(LIMITER_UNAVAILABLE)
where the share is used up, as the limit itself may have room. What it counted is gone with the process.
"""

import math

import msgspec

from gateway.domain.decisions import Admitted, Counter, Line, Refused, Reservation, Settlement, judge
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.memory_limiter import GRACE_S, MemoryLimiter

REMEMBERED = 20_000
"""Accounts whose last known counts are kept."""


class LocalLimiter:
    """Worker `worker` (from 0) of `workers`, which admit `share` (0 to 1) of each limit between them."""

    def __init__(self, *, share: float, workers: int, worker: int) -> None:
        self._share = share
        self._workers = workers
        self._worker = worker
        self._now_us = 0
        self._memory = MemoryLimiter(partitions=1, now_us=lambda: self._now_us)
        self._known: dict[str, tuple[tuple[Line, ...], tuple[int, ...]]] = {}

    def saw(self, account_id: str, lines: tuple[Line, ...], used: tuple[int, ...]) -> None:
        """What the limiter last said of an account: how much of each line's window is used."""
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[account_id] = lines, used

    def part(self, limit: int) -> int:
        """What this worker may admit of a limit: the parts of all workers add up to ⌈share · limit⌉."""
        whole = math.ceil(limit * self._share)
        return whole // self._workers + (self._worker < whole % self._workers)

    async def reserve(self, asked: Reservation, now_ms: int) -> Admitted | Refused:
        """Admit or refuse at `now_ms` (the limiter's clock); what is told as used leaves what this worker still admits.

        Refused is said only of a limit that is used up itself, as far as is known here.
        """
        self._now_us = now_ms * 1000
        known = self._known_used(asked)
        rooms = [
            min(self.part(line.maximum), max(0, line.maximum - used))
            for line, used in zip(asked.lines, known, strict=True)
        ]
        lines = tuple(
            msgspec.structs.replace(line, maximum=room) for line, room in zip(asked.lines, rooms, strict=True)
        )
        concurrency = asked.concurrency if asked.concurrency < 0 else self.part(asked.concurrency)
        here = msgspec.structs.replace(asked, version=0, lines=lines, concurrency=concurrency, about=None)
        decision = await self._memory.reserve(here)
        if not isinstance(decision, Admitted | Refused):
            await self._begin(here)
            decision = await self._memory.reserve(here)
        if isinstance(decision, Admitted):
            used = [
                line.maximum - room + count for line, room, count in zip(asked.lines, rooms, decision.used, strict=True)
            ]
            return Admitted(now_ms, tuple(used), decision.running)
        if isinstance(decision, Refused):
            used_up = tuple(count + before for count, before in zip(decision.used, known, strict=True))
            refused = judge(asked, now_ms, used_up, 0)
            if refused is not None:
                return refused
        raise Fault(LIMITER_UNAVAILABLE, f"not checked, and this worker's share is used up: {decision}")

    def settle(self, settlement: Settlement) -> None:
        """Replace what was reserved by what was used."""
        self._memory.settle(msgspec.structs.replace(settlement, event=b""))

    def give_back(self, asked: Reservation) -> None:
        """Undo a reservation."""
        nothing = tuple((line.name, line.start_s, 0) for line in asked.lines)
        self.settle(Settlement(asked.request_id, asked.account_id, nothing, b""))

    async def _begin(self, asked: Reservation) -> None:
        expires_s = max((line.end_s for line in asked.lines), default=self._now_us // 1_000_000) + GRACE_S
        counters = tuple(Counter(line.name, 0, 0) for line in asked.lines)
        await self._memory.hydrate(asked.account_id, 0, counters, expires_s, "")

    def _known_used(self, asked: Reservation) -> list[int]:
        """What is known to be used of each line's window; 0 where nothing is."""
        lines, used = self._known.get(asked.account_id, ((), ()))
        known = {(line.name, line.start_s): count for line, count in zip(lines, used, strict=True)}
        return [known.get((line.name, line.start_s), 0) for line in asked.lines]
