"""What an account may do right now, where each part of it comes from, and what a request would be told.

Reads the ledger and the limiter, changes nothing. Where the limiter is silent, counts are the ledger's.
"""

from collections.abc import Sequence

from gateway.console.admin_answers import Explanation, LimitExplained, Verdict
from gateway.console.admin_desk import Desk
from gateway.console.admin_plans import told_addon, told_subscription, told_terms
from gateway.console.limit_use import Counters, used_of
from gateway.console.moments import at_ms, at_s
from gateway.dialects.refusal_text import describe
from gateway.domain.decisions import Line, Refused, Reservation, judge
from gateway.domain.entitlements import Entitlements, Standing
from gateway.domain.faults import LIMITER_UNAVAILABLE, SUSPENDED_ACCOUNT, UNKNOWN_TIER, Fault, FaultKind
from gateway.domain.limits import Limit, Remedy, Tier
from gateway.domain.terms import NO_TERMS
from gateway.domain.usage import Usage, amount
from gateway.domain.windows import span
from gateway.settings.tiers import tiers_of

_SMALLEST = Usage(1, 1)


async def explain(desk: Desk, account_id: str) -> Explanation:
    """All of it, as of now. Raises Fault: NOT_FOUND, LEDGER_UNAVAILABLE."""
    now_s = desk.now_s
    standing = await desk.ledger.standing(account_id)
    entitled = desk.entitlements(standing, now_s)
    live = await _live(desk, account_id)
    limits = await _limits(desk, standing, entitled, now_s, live[1] if live else {})
    account, effective, tier = standing.account, entitled.effective, entitled.tier
    told = {limit.name for limit in limits}
    own = tiers_of(desk.settings()).get(effective.tier)
    return Explanation(
        account=account.id,
        name=account.name,
        suspended=account.suspended,
        at=at_ms(now_s * 1000),
        tier=effective.tier,
        reason=effective.reason,
        kind=effective.kind,
        own_tier=account.tier,
        next_change_at=at_s(entitled.until_s),
        next_tier=None if entitled.until_s is None else desk.entitlements(standing, entitled.until_s).effective.tier,
        counted_by="limiter" if live and live[1] else "ledger",
        limits=limits,
        unbounded=[] if own is None else [one.name for one in own.limits if one.name not in told],
        concurrency=None if tier is None else tier.concurrency,
        running=live[0] if live else None,
        numbers={} if tier is None else dict(tier.numbers),
        features={} if tier is None else dict(tier.features),
        subscriptions=[told_subscription(one) for one in standing.subscriptions],
        addons=[told_addon(one) for one in standing.grants],
        overrides=told_terms(standing.overrides),
        verdict=_verdict(standing, entitled, limits, live[0] if live else 0, desk.now_ms()),
    )


async def _live(desk: Desk, account_id: str) -> tuple[int, Counters] | None:
    """How many requests run, and the counters, none of who asked for nothing; None where the limiter is silent."""
    try:
        state = await desk.peek(account_id)
    except Fault as fault:
        if fault.kind is not LIMITER_UNAVAILABLE:
            raise
        return None
    return (0, {}) if state is None else state[1:]


async def _limits(
    desk: Desk, standing: Standing, entitled: Entitlements, now_s: int, counters: Counters
) -> list[LimitExplained]:
    if entitled.tier is None:
        return []
    own = tiers_of(desk.settings())[entitled.effective.tier]
    maxima = {limit.name: limit.maximum for limit in own.limits}
    bought = entitled.effective.subscription
    terms = NO_TERMS if bought is None else bought.terms
    told = []
    for limit in entitled.tier.limits:
        used, end_s = await used_of(desk.ledger, standing.account.id, entitled.tier, limit, now_s, counters)
        told.append(
            LimitExplained(
                name=limit.name,
                tier=maxima.get(limit.name),
                terms=terms.limits.get(limit.name),
                override=standing.overrides.limits.get(limit.name),
                addons=entitled.addons[limit.name],
                limit=limit.maximum,
                used=used,
                remaining=max(0, limit.maximum - used),
                resets_at=at_s(end_s),
                remedy=limit.remedy,
            )
        )
    return told


def _verdict(
    standing: Standing, entitled: Entitlements, limits: Sequence[LimitExplained], running: int, now_ms: int
) -> Verdict:
    if standing.account.suspended:
        return _fault(SUSPENDED_ACCOUNT)
    if entitled.tier is None:
        return _fault(UNKNOWN_TIER)
    lines = [_line(entitled.tier, limit, now_ms // 1000) for limit in entitled.tier.limits]
    concurrency = -1 if entitled.tier.concurrency is None else entitled.tier.concurrency
    asked = Reservation("", standing.account.id, entitled.version, tuple(lines), concurrency)
    refused = judge(asked, now_ms, tuple(limit.used for limit in limits), running)
    if refused is None:
        return Verdict(admitted=True, status=200, code=None, message="It would be admitted.", retry_after_s=None)
    return Verdict(
        admitted=False,
        status=429,
        code="insufficient_quota" if refused.remedy is Remedy.PAY else "rate_limit_exceeded",
        message=describe(refused),
        retry_after_s=_wait_s(refused),
    )


def _line(tier: Tier, limit: Limit, now_s: int) -> Line:
    counter, start_s, end_s = span(tier, limit, now_s)
    return Line(counter, start_s, end_s, limit.maximum, amount(limit.unit, 1, _SMALLEST), limit.remedy)


def _wait_s(refused: Refused) -> int | None:
    return None if refused.remedy is Remedy.PAY else refused.retry_after_s


def _fault(kind: FaultKind) -> Verdict:
    return Verdict(admitted=False, status=kind.status, code=kind.code, message=kind.public, retry_after_s=None)
