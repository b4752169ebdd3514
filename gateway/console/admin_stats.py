"""Statistics over all accounts, for operators. See `admin_desk.py`."""

from collections import Counter
from datetime import UTC, datetime

from gateway.console.admin_answers import RefusedTold, Stats, TopTold, UsedTold
from gateway.console.admin_bodies import StatsQuery, TopQuery
from gateway.console.admin_desk import Desk
from gateway.domain.faults import UNKNOWN_PARAMETER, Fault
from gateway.domain.limits import UTC as UTC_ZONE
from gateway.domain.limits import Window
from gateway.domain.windows import bounds
from gateway.ledger.reports import Used
from gateway.settings.tiers import rules_of
from gateway.telemetry import catalogue
from gateway.telemetry.snapshot import read_all

_DAY_S = 86_400
_ENDPOINTS = 20


async def stats(desk: Desk, asked: StatsQuery) -> Stats:
    """All of it, as of now."""
    now_s, rules = desk.now_s, rules_of(desk.settings())
    since_s = now_s - asked.days * _DAY_S
    giving = await desk.ledger.giving_subscriptions(rules, now_s)
    churn = await desk.ledger.churn(rules, since_s, now_s)
    endpoints = await desk.ledger.top_endpoints(since_s - since_s % 3600, now_s + 1, _ENDPOINTS)
    hits = await desk.ledger.hits_by_tier(since_s, now_s + 1)
    requests, refused = _counted(desk)
    return Stats(
        days=asked.days,
        subscriptions=giving,
        ended=churn.ended,
        not_renewed=churn.not_renewed,
        churn_rate=_rate(churn.ended, churn.ended + sum(giving.values())),
        requests=requests,
        refused=[RefusedTold(tier=tier, limit=limit, count=count) for (tier, limit), count in sorted(refused.items())],
        refusal_rate=_rate(sum(refused.values()), requests),
        endpoints=[_told(one) for one in endpoints],
        tiers=[_told(one) for one in hits],
    )


async def top_accounts(desk: Desk, asked: TopQuery) -> TopTold:
    """One page. Raises Fault(UNKNOWN_PARAMETER) for a day that there is not."""
    found = await desk.ledger.top_accounts(*_span(desk, asked.of), asked.offset, asked.limit)
    more = asked.offset + len(found) if len(found) == asked.limit else None
    return TopTold(items=[_told(one) for one in found], next=more)


def _span(desk: Desk, of: str) -> tuple[int, int]:
    if not of:
        return bounds(Window.DAY, desk.now_s, UTC_ZONE)
    try:
        day = datetime.fromisoformat(of if len(of) > 7 else f"{of}-01").replace(tzinfo=UTC)
    except ValueError as error:
        raise Fault(UNKNOWN_PARAMETER, public=f"`of`: {of} is no day or month.") from error
    return bounds(Window.DAY if len(of) > 7 else Window.MONTH, int(day.timestamp()), UTC_ZONE)


def _counted(desk: Desk) -> tuple[int, Counter[tuple[str, str]]]:
    """Requests and refusals (by tier and limit) as the workers of this machine last wrote them down."""
    requests, refused = 0, Counter[tuple[str, str]]()
    for one in read_all(desk.metrics_dir):
        requests += int(sum(one.counters.get(catalogue.REQUESTS.name, {}).values()))
        for (tier, limit), count in one.counters.get(catalogue.REFUSALS.name, {}).items():
            refused[str(tier), str(limit)] += int(count)
    return requests, refused


def _rate(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _told(one: Used) -> UsedTold:
    return UsedTold(
        name=one.name,
        requests=one.totals.requests,
        tokens=one.totals.tokens,
        input_tokens=one.totals.input_tokens,
        output_tokens=one.totals.output_tokens,
    )
