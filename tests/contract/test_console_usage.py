"""`GET /_tollway/usage`: an account sees its own limits and totals, exactly, from the limiter or from the ledger."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.console.usage import _number
from gateway.domain.decisions import Admitted, Counter, Line, Reservation
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.ledger.ledger import Ledger
from tests.support.consoles import NOW_MS, Bench, console_over, unknown_key
from tests.support.ledgers import NOON_MS, an_event

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NOON_S, DAY_START_S = NOON_MS // 1000, NOON_MS // 1000 - 12 * 3600
MONTH_START_S = DAY_START_S - 20 * 86_400


async def _hydrate(bench: Bench, version: int, counters: tuple[Counter, ...]) -> None:
    mark = await bench.limiter.flushed_mark("acme", 1.0)
    assert await bench.limiter.hydrate("acme", version, counters, NOON_S + 90 * 86_400, mark)


def _by_name(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {limit["name"]: limit for limit in body["limits"]}


async def test_tells_each_limit_and_what_is_left_of_it(ledger: Ledger) -> None:
    """B4, C1: used, limit, remaining, percent and reset of every limit, to the unit; an app's meter would lie."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme")
        counters = Counter("requests/hour", NOON_S, 12), Counter("tokens/day", DAY_START_S, 375)
        await _hydrate(bench, 2, (*counters, Counter("input_tokens/month", MONTH_START_S, 7)))

        reply = await bench.get("/usage", key)

    body = reply.json()
    assert reply.status_code == 200
    assert (body["account"], body["tier"], body["counted_by"]) == ("acme", "free", "limiter")
    assert body["at"] == "2026-11-21T12:30:00Z"
    assert body["limits"][0] == {
        "name": "requests/hour",
        "unit": "requests",
        "window": "hour",
        "used": 12,
        "limit": 50,
        "addons": 0,
        "remaining": 38,
        "percent": 24.0,
        "resets_at": "2026-11-21T13:00:00Z",
        "reset_s": 1800,
        "remedy": "wait",
    }
    tokens, paid = body["limits"][1:]
    assert (tokens["used"], tokens["percent"], tokens["resets_at"]) == (375, 37.5, "2026-11-22T00:00:00Z")
    assert (paid["used"], paid["remaining"], paid["percent"], paid["remedy"]) == (7, 0, 100.0, "pay")
    assert paid["resets_at"] == "2026-12-01T00:00:00Z"


async def test_a_window_that_rolled_since_the_last_request_is_empty(ledger: Ledger) -> None:
    """B4: a caller who was idle over the reset sees a fresh window, not the old one's count."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme")
        await _hydrate(bench, 2, (Counter("requests/hour", NOON_S - 3600, 50),))

        limits = _by_name((await bench.get("/usage", key)).json())

    assert limits["requests/hour"]["used"] == 0
    assert limits["requests/hour"]["remaining"] == 50


async def test_a_running_request_counts_with_its_estimate(ledger: Ledger) -> None:
    """B4: what is held can't be spent again, so a meter must show it as used."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme")
        await _hydrate(bench, 2, (Counter("tokens/day", DAY_START_S, 100),))
        line = Line("tokens/day", DAY_START_S, DAY_START_S + 86_400, 1_000, 400)
        held = await bench.limiter.reserve(Reservation("r1", "acme", 2, (line,), concurrency=3))

        body = (await bench.get("/usage", key)).json()

    assert isinstance(held, Admitted)
    assert _by_name(body)["tokens/day"]["used"] == 500
    assert body["concurrency"] == {"limit": 3, "running": 1}


@pytest.mark.parametrize("silent", [False, True])
async def test_the_ledger_stands_in_for_a_limiter_that_is_silent_or_empty(ledger: Ledger, silent: bool) -> None:
    """B4, C1: with Redis away or replaced, callers still see what they used, window by window."""

    async def no_peek(_: str) -> None:
        if silent:
            raise Fault(LIMITER_UNAVAILABLE)

    events = [
        an_event("now", admitted_ms=NOON_MS + 60_000),
        an_event("given-back", admitted_ms=NOON_MS + 61_000, requests=0, input_tokens=0, output_tokens=0),
        an_event("this-morning", admitted_ms=NOON_MS - 5 * HOUR_MS),
        an_event("yesterday", admitted_ms=NOON_MS - DAY_MS),
        an_event("last-month", admitted_ms=NOON_MS - 30 * DAY_MS),
        an_event("another's", account_id="other", admitted_ms=NOON_MS + 60_000),
    ]
    async with console_over(ledger, peek=no_peek) as bench:
        key = await bench.account("acme")
        await ledger.take_events(events)

        body = (await bench.get("/usage", key)).json()

    limits = _by_name(body)
    assert body["counted_by"] == "ledger"
    assert body["concurrency"]["running"] is None
    assert limits["requests/hour"]["used"] == 1
    assert limits["tokens/day"]["used"] == 60
    assert limits["input_tokens/month"]["used"] == 30


async def test_tells_today_and_this_month_by_kind(ledger: Ledger) -> None:
    """C1, E7: totals by kind are the ledger's sums of the day and the month, or bills and meters part ways."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme")
        await ledger.take_events(
            [
                an_event("a"),
                an_event("b", admitted_ms=NOON_MS - DAY_MS),
                an_event("c", admitted_ms=NOON_MS - 40 * DAY_MS),
            ]
        )

        body = (await bench.get("/usage", key)).json()

    assert body["today"] == {
        "from": "2026-11-21T00:00:00Z",
        "requests": 1,
        "tokens": 30,
        "input_tokens": 10,
        "output_tokens": 20,
        "cached_tokens": 3,
        "reasoning_tokens": 4,
        "limit": 1_000,
        "resets_at": "2026-11-22T00:00:00Z",
        "last_update": "2026-11-21T12:00:00Z",
    }
    assert (body["month"]["from"], body["month"]["requests"], body["month"]["tokens"]) == (
        "2026-11-01T00:00:00Z",
        2,
        60,
    )
    assert "days" not in body


async def test_history_by_day_ends_today_and_is_as_long_as_asked(ledger: Ledger) -> None:
    """C2: the last N days, today among them; a day too few or too many misleads who plans by it."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme")
        await ledger.take_events([an_event(f"r{back}", admitted_ms=NOON_MS - back * DAY_MS) for back in range(4)])

        body = (await bench.get("/usage?days=3", key)).json()

    assert [day["date"] for day in body["days"]] == ["2026-11-19", "2026-11-20", "2026-11-21"]
    assert body["days"][0]["tokens"] == 30


async def test_a_new_tier_shows_at_once(ledger: Ledger) -> None:
    """D3: who has just upgraded sees the new limits, not what the gateway remembered of the old tier."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme")
        assert (await bench.get("/usage", key)).json()["tier"] == "free"
        changed = await ledger.set_tier("acme", "premium", NOW_MS)
        await _hydrate(bench, changed.version, ())

        body = (await bench.get("/usage", key)).json()

    assert body["tier"] == "premium"
    assert [limit["limit"] for limit in body["limits"]] == [500]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"authorization": "Basic dXNlcg=="}, "missing_api_key"),
        ({"authorization": "Bearer  "}, "missing_api_key"),
        ({"authorization": "Bearer ä"}, "invalid_api_key"),
        ({"authorization": f"Bearer {unknown_key()}"}, "invalid_api_key"),
    ],
)
async def test_without_a_good_key_there_is_no_usage(ledger: Ledger, headers: dict[str, str], code: str) -> None:
    """C3: usage is for its owner; anybody else gets 401, told as RFC 9110 §11.6.1 asks."""
    async with console_over(ledger) as bench:
        fields = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        reply = await bench.client.get("/_tollway/usage", headers=fields)

    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == code
    assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("dais=3", ("dais", "days")),
        ("days=0", ("from 1 to 400",)),
        ("days=401", ("from 1 to 400",)),
        ("hours=1001", ("from 1 to 1000",)),
        ("days=²", ("from 1 to 400",)),
        ("days=", ("from 1 to 400",)),
        ("days=1&days=2", ("twice",)),
    ],
)
async def test_a_parameter_that_is_not_understood_is_refused(
    ledger: Ledger, query: str, names: tuple[str, ...]
) -> None:
    """B4: a misspelt parameter that was ignored would show the wrong span as if it were the right one."""
    async with console_over(ledger) as bench:
        reply = await bench.get(f"/usage?{query}", await bench.account("acme"))

    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, "unknown_parameter")
    assert all(name in error["message"] for name in names)


@given(st.text(max_size=8))
def test_any_text_for_days_is_a_number_in_range_or_a_fault(text: str) -> None:
    """F8: no query makes the console crash or read more days than it allows."""
    try:
        days = _number({"days": text}, "days", 1, 400)
    except Fault:
        return

    assert 1 <= days <= 400


async def test_a_tier_gone_from_the_settings_is_said_to_be_so(ledger: Ledger) -> None:
    """D9: an account on a tier that the file no longer has sees a fault, not an empty list read as "no limits"."""
    async with console_over(ledger) as bench:
        reply = await bench.get("/usage", await bench.account("acme", tier="gone"))

    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "unknown_tier")
    assert reply.headers["retry-after"] == "1"
