"""What an account sees of what it has bought, and of its months."""

from typing import Any

import msgspec
import pytest

from gateway.domain.audit import SYSTEM
from gateway.domain.entitlements import Grant
from gateway.domain.limits import Unit
from gateway.domain.subscriptions import Status, Subscription
from gateway.domain.terms import Terms
from gateway.ledger.ledger import Ledger
from tests.support.consoles import NOW_MS, Bench, console_over
from tests.support.ledgers import NOON_MS, an_event

DAY_MS = 86_400_000
NOW_S = NOW_MS // 1000
BEGAN_S = NOW_S - 10 * 86_400


async def _subscribed(bench: Bench, status: Status = Status.ACTIVE, now_ms: int = NOW_MS, **fields: Any) -> str:
    """An account with a subscription to pro that renewed ten days ago; its key."""
    key = await bench.account("acme")
    given = {"period_start_s": BEGAN_S, "period_end_s": BEGAN_S + 30 * 86_400, "reset_ms": BEGAN_S * 1000, **fields}
    subscription = Subscription("sub_1", "acme", "pro", status, updated_ms=now_ms, **given)
    await bench.ledger.upsert_subscription(subscription, SYSTEM, now_ms)
    return key


async def _used(ledger: Ledger, *days_back: int) -> None:
    await ledger.take_events([an_event(f"r{back}", admitted_ms=NOON_MS - back * DAY_MS) for back in days_back])


async def test_tells_the_period_the_lifetime_and_the_add_ons(ledger: Ledger) -> None:
    """A1: used in this period and in all, last reset, maximum, add-ons, start and end, to the token and second."""
    async with console_over(ledger) as bench:
        key = await _subscribed(bench)
        await ledger.add_grant(Grant("g1", "acme", Unit.TOKENS, 999_999_999), SYSTEM, NOW_MS)
        await ledger.set_overrides("acme", Terms(numbers={"seats": 2}), SYSTEM, NOW_MS)
        await _used(ledger, 0, 3, 11, 200)

        body = (await bench.get("/usage", key)).json()

    assert body["period"] == {
        "start": "2026-11-11T12:30:00Z",
        "end": "2026-12-11T12:30:00Z",
        "last_reset": "2026-11-11T12:30:00Z",
        "tokens": 60,
        "max_tokens": 50_000,
        "addon_tokens": 999_999_999,
        "remaining": 999_999_999 + 50_000 - 60,
    }
    assert (body["lifetime"]["tokens"], body["lifetime"]["requests"]) == (120, 4)
    assert (body["kind"], body["tier"], body["tier_reason"]) == ("subscribed", "pro", "its subscription is active")
    assert (body["subscription"]["status"], body["tier_until"]) == ("active", None)
    assert body["numbers"] == {"max_banks": 3, "max_storage_gb": 5.5, "seats": 2}
    assert body["features"] == {"exports": True}
    period, lifetime = body["limits"]
    assert (period["used"], period["addons"], period["resets_at"]) == (60, 999_999_999, "2026-12-11T12:30:00Z")
    assert (lifetime["used"], lifetime["resets_at"], lifetime["reset_s"]) == (120, None, None)


async def test_a_limit_of_the_month_is_told_with_the_months_own_edges(ledger: Ledger) -> None:
    """A1: maximum, use and reset are of one and the same window, for who never subscribed as well."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme", "premium")
        await ledger.set_overrides("acme", Terms({"tokens/month": 100}), SYSTEM, NOW_MS)
        await _used(ledger, 0, 3, 30)

        body = (await bench.get("/usage", key)).json()

    assert (body["kind"], body["subscription"], body["tier_reason"]) == ("free", None, "no subscription")
    assert body["period"] == {
        "start": "2026-11-01T00:00:00Z",
        "end": "2026-12-01T00:00:00Z",
        "last_reset": "2026-11-01T00:00:00Z",
        "tokens": 60,
        "max_tokens": 100,
        "addon_tokens": 0,
        "remaining": 40,
    }


@pytest.mark.parametrize(
    ("status", "tier", "kind"),
    [(Status.TRIALING, "pro", "trial"), (Status.ACTIVE, "pro", "subscribed"), (Status.UNPAID, "free", "free")],
)
async def test_tells_the_kind_of_account(ledger: Ledger, status: Status, tier: str, kind: str) -> None:
    """C1: trial, subscribed or free, as the account is at this second."""
    async with console_over(ledger) as bench:
        body = (await bench.get("/usage", await _subscribed(bench, status))).json()

    assert (body["tier"], body["kind"]) == (tier, kind)


async def test_the_legacy_shape_is_there_for_who_asks(ledger: Ledger) -> None:
    """A2: an app that was written for the older system reads its own field names, and nobody else sees them."""
    async with console_over(ledger) as bench:
        key = await _subscribed(bench)
        await ledger.add_grant(Grant("g1", "acme", Unit.TOKENS, 7), SYSTEM, NOW_MS)
        await _used(ledger, 0, 11)

        body = (await bench.get("/usage?shape=legacy", key)).json()
        plain = (await bench.get("/usage", key)).json()
        wrong = await bench.get("/usage?shape=old", key)

    assert body == {
        "maxChatsPerMonth": 50_000,
        "currentChatsUsed": 30,
        "addonChats": 7,
        "lifetimeChatsUsed": 60,
        "lastResetDate": "2026-11-11T12:30:00Z",
        "currentPeriodStart": "2026-11-11T12:30:00Z",
        "currentPeriodEnd": "2026-12-11T12:30:00Z",
        "plan": "pro",
        "status": "active",
    }
    assert not set(body) & set(plain)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "unknown_parameter")


async def test_months_have_days_sums_averages_and_peaks(ledger: Ledger) -> None:
    """C2: each month has its days, their sum, the average over its days so far, the first of its peaks, its kind."""
    async with console_over(ledger) as bench:
        key = await _made_long_ago(bench)
        await ledger.take_events([an_event("x", admitted_ms=NOON_MS - DAY_MS), an_event("y", admitted_ms=NOON_MS)])
        await _used(ledger, 0, 1, 2, 21, 60)

        body = (await bench.get("/usage/history?months=3", key)).json()

    september, october, november = body["months"]
    assert september == {
        "month": "2026-09",
        "days": {"2026-09-22": 30},
        "tokens": 30,
        "average_per_day": 1.0,
        "peak_day": "2026-09-22",
        "peak_tokens": 30,
        "kind": "free",
    }
    assert (october["month"], october["tokens"], october["average_per_day"]) == ("2026-10", 30, round(30 / 31, 1))
    assert november["days"] == {"2026-11-19": 30, "2026-11-20": 60, "2026-11-21": 60}
    assert (november["tokens"], november["average_per_day"]) == (150, round(150 / 21, 1))
    assert (november["peak_day"], november["peak_tokens"]) == ("2026-11-20", 60)
    assert [month["kind"] for month in body["months"]] == ["free", "trial", "subscribed"]


async def test_a_year_is_told_unless_asked_otherwise(ledger: Ledger) -> None:
    """C2: twelve months and more, none from before the account was made; an empty month is a month of nothing."""
    async with console_over(ledger) as bench:
        key = await _made_long_ago(bench)
        year = (await bench.get("/usage/history", key)).json()["months"]
        most = (await bench.get("/usage/history?months=120", key)).json()["months"]
        wrong = await bench.get("/usage/history?months=121", key)

    assert [len(year), len(most), year[-1]["month"], most[0]["month"]] == [12, 21, "2026-11", "2025-03"]
    assert (most[0]["days"], most[0]["tokens"], most[0]["peak_day"]) == ({}, 0, None)
    assert wrong.status_code == 400


async def _made_long_ago(bench: Bench) -> str:
    """An account of March 2025 that began a trial on 1 October 2026 and paid from 1 November on; its key."""
    ledger = bench.ledger
    await ledger.create_account("acme", "free", "", NOW_MS - 620 * DAY_MS)
    trial = Subscription("sub_1", "acme", "pro", Status.TRIALING, updated_ms=1)
    await ledger.upsert_subscription(trial, SYSTEM, NOW_MS - 50 * DAY_MS)
    paid = msgspec.structs.replace(trial, status=Status.ACTIVE, updated_ms=2)
    await ledger.upsert_subscription(paid, SYSTEM, NOW_MS - 20 * DAY_MS)
    return await bench.key("acme")
