"""A slow watch for drift: the live counters of one account after another against the ledger, by one gateway at a time.

Promises: no false alarm: an account counts as drifted once two checks in a row found so, and no longer once one finds
nothing. Costs a few reads of Redis and the ledger every `INTERVAL_S`, however many accounts there are. Never fails:
while Redis or the ledger is away, it waits.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from gateway.console.drift import Drift
from gateway.domain.faults import Fault
from gateway.ledger.ledger import Ledger
from gateway.quota.redis_survey import RedisSurvey
from gateway.quota.resp import RedisError
from gateway.snapshot import Plan
from gateway.telemetry.log import log

INTERVAL_S = 5.0
LEASE_MS = 60_000
PAGE = 50
"""How many accounts are looked through at a time for one that has live state."""


class DriftWatch:
    """One worker's watch. `lead(owner, lease_ms)` takes or renews the one lease; `plan` is an account's, if any."""

    def __init__(
        self,
        ledger: Ledger,
        survey: RedisSurvey,
        drift: Drift,
        lead: Callable[[str, int], Awaitable[bool]],
        plan: Callable[[str], Awaitable[Plan | None]],
    ) -> None:
        self._ledger = ledger
        self._survey = survey
        self._drift = drift
        self._lead = lead
        self._plan = plan
        self._after = ""
        self._found: dict[str, int] = {}
        self.checked = 0

    @property
    def drifted(self) -> int:
        """Accounts whose last two checks found drift."""
        return sum(times > 1 for times in self._found.values())

    async def run(self, owner: str) -> NoReturn:
        """Check one account at a time, until cancelled, and again those that were found drifted."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                if await self._lead(owner, LEASE_MS):
                    await self._turn()
                else:
                    self._found.clear()
            except (Fault, RedisError) as error:
                log.info("drift_check_waits", detail=str(error))

    async def _turn(self) -> None:
        again = next(iter(self._found), None)
        if again is not None:
            await self._check(again)
        account_id = await self._next()
        if account_id is not None and account_id not in self._found:
            await self._check(account_id)

    async def _next(self) -> str | None:
        """The next account that has live state, within a page."""
        page = await self._ledger.list_accounts(self._after, PAGE)
        for account in page:
            self._after = account.id
            if (await self._survey.of(account.id)).version is not None:
                return account.id
        self._after = "" if len(page) < PAGE else self._after
        return None

    async def _check(self, account_id: str) -> None:
        plan = await self._plan(account_id)
        times = self._found.pop(account_id, 0)
        found = [] if plan is None else await self._drift.of(account_id, plan)
        self.checked += 1
        if not found:
            return
        self._found[account_id] = times + 1  # behind the others, which have their turn first
        if times == 1:
            first = found[0]
            log.error("drift_found", account_id=account_id, what=first.what, live=first.live, true=first.true)
