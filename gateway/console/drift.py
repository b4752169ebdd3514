"""Live counters held against the ledger, while requests run.

Promises: no false alarm: what Redis counts at one moment is compared with what the ledger holds of that moment, once
the flusher has passed it, and a difference is told only where it stands unchanged through several looks. Fails with
Fault(LIMITER_UNAVAILABLE or LEDGER_UNAVAILABLE).
"""

import msgspec

from gateway.domain.usage import LATE, Usage, amount
from gateway.ledger.ledger import Ledger
from gateway.quota.limiter import Limiter
from gateway.quota.redis_survey import RedisSurvey, Survey
from gateway.snapshot import Plan

LOOKS = 3
PATIENCE_S = 5.0
"""How long a look waits for the flusher."""


class Difference(msgspec.Struct, frozen=True):
    """What of an account is one thing to Redis and another by the ledger."""

    account_id: str
    what: str
    live: int
    true: int


class Drift:
    """Compares accounts."""

    def __init__(self, survey: RedisSurvey, limiter: Limiter, ledger: Ledger) -> None:
        self._survey = survey
        self._limiter = limiter
        self._ledger = ledger

    async def of(self, account_id: str, plan: Plan) -> list[Difference]:
        """What drifted of the account, by the plan that counts for it; nothing where it has no live state."""
        standing: dict[tuple[str, int], Difference] = {}
        for look in range(LOOKS):
            found = {(each.what, each.live - each.true): each for each in await self._look(account_id, plan)}
            standing = {key: each for key, each in found.items() if look == 0 or key in standing}
            if not standing:
                break
        return list(standing.values())

    async def _look(self, account_id: str, plan: Plan) -> list[Difference]:
        survey = await self._survey.of(account_id)
        if survey.version is None:
            return []
        await self._limiter.flushed_mark(account_id, PATIENCE_S)
        pairs = [("running", survey.running, len(survey.holds)), await self._version(account_id, survey.version)]
        pairs += await self._counters(account_id, plan, survey)
        return [Difference(account_id, what, live, true) for what, live, true in pairs if live != true]

    async def _version(self, account_id: str, live: int) -> tuple[str, int, int]:
        """A change that Redis was not told of yet is no drift."""
        account = await self._ledger.account(account_id)
        untold = account_id in {bump.account_id for bump in await self._ledger.pending_bumps()}
        return "version", live, live if untold else account.version

    async def _counters(self, account_id: str, plan: Plan, survey: Survey) -> list[tuple[str, int, int]]:
        # What was held then may be settled by now: it is counted as held.
        held_ids = [hold.request_id for hold in survey.holds]
        held_ids += [request_id + LATE for request_id in held_ids]
        pairs = []
        for unit, line in zip(plan.units, plan.frame(survey.now_ms // 1000).lines, strict=True):
            start_s, live = survey.used.get(line.name, (-1, 0))
            if start_s != line.start_s:
                continue
            totals = await self._ledger.settled(account_id, line.start_s, line.end_s, survey.now_ms, held_ids)
            true = amount(unit, totals.requests, Usage(totals.input_tokens, totals.output_tokens))
            key = line.name, line.start_s
            true += sum(held for hold in survey.holds for name, begun_s, held in hold.lines if (name, begun_s) == key)
            pairs.append((line.name, live, true))
        return pairs
