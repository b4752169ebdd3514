"""Rebuilding an account's live counters from the ledger, where the limiter has none.

Promises: what the ledger is read for is complete up to the moment of reading (the usage stream is waited for), so that
a flushed or replaced Redis never opens a used-up window; one load per account at a time in this process, and one writer
among all of them. Fails with Fault(LIMITER_UNAVAILABLE or LEDGER_UNAVAILABLE).
"""

import asyncio

from gateway.domain.decisions import Counter, Line
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.domain.limits import Unit
from gateway.domain.usage import Usage, amount
from gateway.ledger.ledger import Ledger
from gateway.quota.limiter import Limiter
from gateway.snapshot import Frame, Plan

PATIENCE_S = 2.0
"""How long a request waits for the flusher to pass what the stream held."""

LONGEST_S = 5.0
"""How long an account is tried for whose answers keep ending: each settlement between the reading of the ledger and the
writing of the counters means to read again.
"""

GRACE_S = 86_400
"""How long the counters outlive their longest window."""


class Hydration:
    """Loads accounts from `ledger` into `limiter`."""

    def __init__(self, limiter: Limiter, ledger: Ledger) -> None:
        self._limiter = limiter
        self._ledger = ledger
        self._loading: dict[str, asyncio.Task[None]] = {}

    async def hydrate(self, account_id: str, version: int, plan: Plan, frame: Frame) -> None:
        """Make sure that the limiter has a state of the account."""
        load = self._loading.get(account_id)
        if load is None:
            load = self._loading[account_id] = asyncio.create_task(self._load(account_id, version, plan, frame))
            load.add_done_callback(lambda done: self._loaded(account_id, done))
        # A caller who leaves must not stop the load that others wait for.
        await asyncio.shield(load)

    def _loaded(self, account_id: str, load: asyncio.Task[None]) -> None:
        del self._loading[account_id]
        if not load.cancelled():
            load.exception()  # marks it as seen, where every caller has left

    async def _load(self, account_id: str, version: int, plan: Plan, frame: Frame) -> None:
        expires_s = max((line.end_s for line in frame.lines), default=frame.end_s) + GRACE_S
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + LONGEST_S
        while loop.time() < deadline_s:
            mark = await self._limiter.flushed_mark(account_id, PATIENCE_S)
            counters = [
                Counter(line.name, line.start_s, await self._used(account_id, unit, line))
                for unit, line in zip(plan.units, frame.lines, strict=True)
            ]
            account = await self._ledger.account(account_id)
            # Whoever asks may not know yet of a change that the limiter was told of before it lost its state.
            newest = max(version, account.version)
            if await self._limiter.hydrate(account_id, newest, tuple(counters), expires_s, mark):
                return
        raise Fault(LIMITER_UNAVAILABLE, f"account {account_id} can't be hydrated: its usage keeps moving")

    async def _used(self, account_id: str, unit: Unit, line: Line) -> int:
        totals = await self._ledger.totals(account_id, line.start_s, line.end_s)
        return amount(unit, totals.requests, Usage(totals.input_tokens, totals.output_tokens))
