"""Statistics over all accounts: what the database sums up is what the rules say of each account alone."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import msgspec

from gateway.domain.accounts import Account
from gateway.domain.audit import SYSTEM
from gateway.domain.subscriptions import DEFAULT_RULES, Access, Status, Subscription, effective_tier
from gateway.domain.usage import Outcome
from gateway.ledger.arrivals import Arrival
from gateway.ledger.ledger import Ledger
from tests.support.admin_client import admin_over
from tests.support.consoles import NOW_MS
from tests.support.ledgers import NOON_MS, an_event

NOW_S, DAY_S = NOW_MS // 1000, 86_400


def some_subscription(draw: random.Random, number: int) -> Subscription:
    """One with moments around now, at their very edges, or without them."""
    moments = (None, NOW_S - 10 * DAY_S, NOW_S - DAY_S, NOW_S - 1, NOW_S, NOW_S + 1, NOW_S + DAY_S)
    names = ("period_start_s", "period_end_s", "trial_end_s", "cancel_at_s", "expires_s")
    found = {name: draw.choice(moments) for name in names}
    since_s = draw.choice((0, NOW_S - 3 * DAY_S, NOW_S - 3 * DAY_S + 1, NOW_S))
    tier, status = draw.choice(("pro", "premium")), draw.choice(list(Status))
    return msgspec.convert(
        {"id": f"s{number}", "account_id": f"a{number}", "tier": tier, "status": status, "since_s": since_s, **found},
        Subscription,
    )


async def bring(ledger: Ledger, *bought: Subscription) -> None:
    """Accounts with these."""
    arrivals = [
        Arrival(Account(one.account_id, "", "free", False, 1, NOW_MS), subscription=one, keeps_tier=True)
        for one in bought
    ]
    await ledger.take_arrivals(arrivals, SYSTEM, NOW_MS)


async def test_active_subscriptions_are_those_that_give_their_tier(ledger: Ledger) -> None:
    """D10: the count by tier is that of the accounts which are served by it, for every status and each edge of time."""
    draw = random.Random(7)
    bought = [some_subscription(draw, number) for number in range(400)]
    await bring(ledger, *bought)
    other = {**DEFAULT_RULES.access, Status.TRIALING: Access.UNTIL_PERIOD_END, Status.UNPAID: Access.GRACE}

    for rules in (DEFAULT_RULES, replace(DEFAULT_RULES, access=other, grace_s=0)):
        giving = Counter(
            one.tier for one in bought if effective_tier(one, NOW_S, rules, "free").subscription is not None
        )
        assert await ledger.giving_subscriptions(rules, NOW_S) == dict(giving)


async def test_churn_counts_who_left_and_who_came_back(ledger: Ledger) -> None:
    """D10: what is over in the span counts once; who has bought anew has not left; what never began is no churn."""

    def one(name: str, account: str, status: Status, **fields: Any) -> Subscription:
        return Subscription(name, account, "pro", status, **fields)

    await bring(
        ledger,
        one("s1", "gone", Status.CANCELED, since_s=NOW_S - DAY_S),
        one("s2", "back", Status.CANCELLED, period_end_s=NOW_S - DAY_S),
        one("s4", "long-ago", Status.EXPIRED, since_s=NOW_S - 90 * DAY_S),
        one("s5", "never", Status.INCOMPLETE_EXPIRED, since_s=NOW_S - DAY_S),
        one("s6", "here", Status.ACTIVE),
    )
    await ledger.upsert_subscription(one("s3", "back", Status.ACTIVE), SYSTEM, NOW_MS)

    async with admin_over(ledger) as admin:
        told = await admin.get("/stats?days=30")
        older = await admin.get("/stats?days=120")

    assert (told["subscriptions"], told["ended"], told["not_renewed"]) == ({"pro": 2}, 2, 1)
    assert told["churn_rate"] == 0.5
    assert (older["ended"], older["not_renewed"]) == (3, 2)


async def test_hits_are_told_by_the_tier_that_counted_then(ledger: Ledger) -> None:
    """D4: requests by tier, most first: a move to another tier changes no past, and what was imported was no hit."""
    day_ms = DAY_S * 1000
    told = (("a", "free", 0), ("a", "free", 1), ("a", "pro", 1), ("b", "pro", 2), ("b", "pro", 29), ("b", "pro", 31))
    events = [
        an_event(f"r{place}", account_id=account, tier=tier, admitted_ms=NOW_MS - days * day_ms)
        for place, (account, tier, days) in enumerate(told)
    ]
    imported = an_event("i1", account_id="a", tier="pro", admitted_ms=NOW_MS, outcome=Outcome.IMPORTED)
    await ledger.take_events([*events, imported])

    async with admin_over(ledger) as admin:
        month = (await admin.get("/stats"))["tiers"]
        week = (await admin.get("/stats?days=7"))["tiers"]

    assert [(one["name"], one["requests"]) for one in month] == [("pro", 3), ("free", 2)]
    assert [(one["name"], one["requests"]) for one in week] == [("free", 2), ("pro", 2)]
    assert month[0]["tokens"] == 3 * month[1]["tokens"] // 2 > 0


async def test_top_accounts_and_endpoints_are_told_in_order(ledger: Ledger) -> None:
    """C4, D4: a day and a month, highest first, page by page; who is left out is the one who costs most."""
    events = [
        an_event(f"r{account}-{i}", account_id=account, endpoint=endpoint, admitted_ms=NOON_MS - days * DAY_S * 1000)
        for account, count, days, endpoint in (("a", 1, 0, "/v1/x"), ("b", 3, 0, "/v1/y"), ("c", 9, 3, "/v1/x"))
        for i in range(count)
    ]
    await ledger.take_events(events)
    async with admin_over(ledger) as admin:
        today = await admin.get("/stats/accounts")
        day = await admin.get("/stats/accounts?of=2026-11-18")
        first = await admin.get("/stats/accounts?of=2026-11&limit=2")
        rest = await admin.get(f"/stats/accounts?of=2026-11&limit=2&offset={first['next']}")
        stats = await admin.get("/stats")
        for wrong in ("of=2026-13", "of=2026-11-31", "of=yesterday", "limit=0"):
            assert (await admin.send("GET", f"/stats/accounts?{wrong}")).status_code == 400, wrong

    assert [(one["name"], one["tokens"]) for one in today["items"]] == [("b", 90), ("a", 30)]
    assert [one["name"] for one in day["items"]] == ["c"]
    assert [one["name"] for one in first["items"] + rest["items"]] == ["c", "b", "a"]
    assert rest["next"] is None
    assert [(one["name"], one["requests"]) for one in stats["endpoints"]] == [("/v1/x", 10), ("/v1/y", 3)]
