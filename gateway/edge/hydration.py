"""Rebuilding an account's live counters from the ledger, where the limiter has none.

Promises: what the ledger is read for is complete up to the moment of reading (the usage stream is waited for), so that
a flushed or replaced Redis never opens a used-up window; one load per account at a time in this process, and one writer
among all of them. Fails with Fault(LIMITER_UNAVAILABLE or LEDGER_UNAVAILABLE).
"""

import asyncio

from gateway.domain.decisions import Counter, Line
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.domain.key_terms import limits_of
from gateway.domain.limits import SLOTS, Tier, Unit
from gateway.domain.usage import Usage, amount
from gateway.domain.windows import span
from gateway.ledger.ledger import Ledger
from gateway.quota.limiter import Limiter
from gateway.snapshot import Frame, Plan

PATIENCE_S = 2.0
"""How long a request waits for its account: for the flusher to pass what the stream held, mostly."""

LONGEST_S = 5.0
"""How long an account is tried, for those who come later: each settlement between the reading of the ledger and the
writing of the counters means to read again.
"""

AHEAD_MS = 3_600_000
"""By how much a clock may have stepped back for the windows begun before to stand. By more, it was the earlier time
that was wrong, and nobody shall be bound to it.
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
        """Make sure that the limiter has a state of the account; after PATIENCE_S it counts as unavailable."""
        load = self._loading.get(account_id)
        if load is None:
            load = self._loading[account_id] = asyncio.create_task(self._load(account_id, version, plan, frame))
            load.add_done_callback(lambda done: self._loaded(account_id, done))
        # A caller who leaves must not stop the load that others wait for.
        await asyncio.wait([load], timeout=PATIENCE_S)
        if not load.done():
            raise Fault(LIMITER_UNAVAILABLE, f"account {account_id} can't be hydrated in time")
        load.result()

    def _loaded(self, account_id: str, load: asyncio.Task[None]) -> None:
        del self._loading[account_id]
        if not load.cancelled():
            load.exception()  # marks it as seen, where every caller has left

    async def _load(self, account_id: str, version: int, plan: Plan, frame: Frame) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + LONGEST_S
        while loop.time() < deadline_s:
            mark = await self._limiter.flushed_mark(account_id, deadline_s - loop.time())
            now_s = await self._moment_s(account_id)
            begun = plan.frame(now_s) if now_s >= frame.end_s else frame
            counters = [
                Counter(line.name, line.start_s, await self._used(account_id, limit.unit, line))
                for limit, line in zip(plan.tier.limits, begun.lines, strict=False)
                if not limit.owner
            ]
            counters += await self._of_keys(account_id, plan.tier, now_s)
            account = await self._ledger.account(account_id)
            # Whoever asks may not know yet of a change that the limiter was told of before it lost its state.
            newest = max(version, account.version)
            expires_s = max((line.end_s for line in begun.lines), default=begun.end_s) + GRACE_S
            if await self._limiter.hydrate(account_id, newest, tuple(counters), expires_s, mark):
                return
        raise Fault(LIMITER_UNAVAILABLE, f"account {account_id} can't be hydrated: its usage keeps moving")

    async def _moment_s(self, account_id: str) -> int:
        """Whose windows the account counts in: now's, or those that it has begun by a clock that stepped back since."""
        now_ms = self._limiter.now_ms
        latest_ms = await self._ledger.latest_ms(account_id)
        return (latest_ms if now_ms < latest_ms <= now_ms + AHEAD_MS else now_ms) // 1000

    async def _of_keys(self, account_id: str, tier: Tier, now_s: int) -> list[Counter]:
        """The counters of every key's own limits: a state that lacked some would be dropped by those keys in turn."""
        keys = await self._ledger.limited_keys(account_id)
        counters: dict[str, Counter] = {}
        for key in keys:
            if key.revoked_ms is not None or (key.expires_ms or now_s * 1000 + 1) <= now_s * 1000:
                continue
            siblings = tuple(one.id for one in keys if one.counter == key.counter)
            for limit in limits_of(key.terms, key.counter):
                name, start_s, end_s = span(tier, limit, now_s)
                if name not in counters:
                    line = Line(name, start_s, end_s, limit.maximum, 0)
                    used = await self._used(account_id, limit.unit, line, siblings)
                    counters[name] = Counter(name, start_s, used)
            if key.terms.concurrency is not None:
                counters[SLOTS + key.counter] = Counter(SLOTS + key.counter, 0, 0)
        return list(counters.values())

    async def _used(self, account_id: str, unit: Unit, line: Line, key_ids: tuple[str, ...] = ()) -> int:
        ledger = self._ledger
        if key_ids:
            totals = await ledger.totals_of_keys(account_id, key_ids, line.start_s, line.end_s)
        else:
            totals = await ledger.totals(account_id, line.start_s, line.end_s)
        return amount(unit, totals.requests, Usage(totals.input_tokens, totals.output_tokens))
