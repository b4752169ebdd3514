"""Gauges (B5): apps report levels, and no level rises past its limit, however many report at once."""

import asyncio
from typing import Any

import httpx

from gateway.domain.audit import SYSTEM
from gateway.domain.gauges import Change
from gateway.domain.terms import Terms
from gateway.ledger.ledger import Ledger
from tests.support.consoles import NOW_MS, Bench, console_over


async def call(bench: Bench, method: str, path: str, key: str, **body: Any) -> httpx.Response:
    """One call; a body where there is one."""
    headers = {"authorization": f"Bearer {key}"}
    return await bench.client.request(method, f"/_tollway/gauges/{path}", headers=headers, json=body or None)


async def test_a_level_is_set_changed_and_told(ledger: Ledger) -> None:
    """B4, B5: what is used, its limit and share, to the thousandth; a meter of storage or of banks reads this."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme", "pro")
        told = (await call(bench, "PUT", "storage_gb", key, value=1.1)).json()
        assert told == {
            "name": "storage_gb",
            "used": 1.1,
            "limit": 5.5,
            "remaining": 4.4,
            "percent": 20.0,
            "resets_at": None,
        }
        for number in range(1, 4):
            assert (await call(bench, "POST", "banks", key, delta=1)).json()["used"] == number

        usage = (await bench.get("/usage", key)).json()["gauges"]

        assert [(one["name"], one["used"], one["limit"], one["percent"]) for one in usage] == [
            ("banks", 3, 3, 100.0),
            ("storage_gb", 1.1, 5.5, 20.0),
        ]
        changes = (await call(bench, "GET", "banks/history", key)).json()["changes"]
        assert [(row["delta"], row["value"], row["at"]) for row in changes] == [
            (1, number, "2026-11-21T12:30:00.000Z") for number in (3, 2, 1)
        ]
        assert {row["key"] for row in changes} == {key[3:15]}


async def test_past_the_limit_is_refused_and_less_is_not(ledger: Ledger) -> None:
    """B5: the fourth of three banks is refused with the figures; who stands above a lowered limit may still go down."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme", "pro")
        assert (await call(bench, "GET", "banks?add=3", key)).json()["fits"] is True
        assert (await call(bench, "GET", "banks?add=4", key)).json()["fits"] is False
        assert (await call(bench, "PUT", "banks", key, value=3)).status_code == 200

        refused = await call(bench, "POST", "banks", key, delta=1)

        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (409, "over_limit")
        assert (error["used"], error["limit"], error["asked"]) == (3, 3, 4)
        assert (await call(bench, "GET", "banks", key)).json()["used"] == 3

        await ledger.set_overrides("acme", Terms(numbers={"max_banks": 1}), SYSTEM, NOW_MS)
        assert (await call(bench, "PUT", "banks", key, value=3)).status_code == 200
        assert (await call(bench, "POST", "banks", key, delta=-1)).json()["used"] == 2
        assert (await call(bench, "PUT", "banks", key, value=3)).status_code == 409
        assert (await call(bench, "PUT", "other", key, value=10**12)).json()["limit"] is None


async def test_fifty_at_once_never_pass_the_limit(ledger: Ledger) -> None:
    """B5: of 50 increments that come at once, a limit of three takes three, on both databases."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme", "pro")
        answers = await asyncio.gather(*[call(bench, "POST", "banks", key, delta=1) for _ in range(50)])

        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [409] * 47
        assert (await call(bench, "GET", "banks", key)).json()["used"] == 3


async def test_a_request_id_counts_once(ledger: Ledger) -> None:
    """A retry of an increment answers as before and adds nothing; another account's same id is another change."""
    async with console_over(ledger) as bench:
        key, other = await bench.account("acme", "pro"), await bench.account("other", "pro")
        same = [call(bench, "POST", "banks", key, delta=1, request_id="r1") for _ in range(10)]
        answers = await asyncio.gather(*same, call(bench, "POST", "banks", other, delta=2, request_id="r1"))

        assert [answer.json()["used"] for answer in answers] == [1] * 10 + [2]
        assert len(await ledger.gauge_history("acme", "banks")) == 1


async def test_bad_calls_are_told_why(ledger: Ledger) -> None:
    """Whoever writes a client learns what is wrong, and no level moves."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme", "pro")
        for method, path, body, status in (
            ("PUT", "banks", {"value": "3"}, 400),
            ("PUT", "banks", {"value": 0.0001}, 400),
            ("PUT", "banks", {"value": -1}, 400),
            ("PUT", "banks", {"value": 1e300}, 400),
            ("PUT", "banks", {"delta": 1}, 400),
            ("POST", "banks", {"delta": 1, "request_id": "a b"}, 400),
            ("POST", "banks", {"delta": 1, "request_id": "a\n"}, 400),
            ("POST", "Banks", {"delta": 1}, 404),
            ("GET", "banks?add=x", {}, 400),
            ("DELETE", "banks", {}, 405),
        ):
            assert (await call(bench, method, path, key, **body)).status_code == status, (method, path, body)
        assert (await call(bench, "GET", "banks", "tw_000000000000_x")).status_code == 401
        assert await ledger.gauges_of("acme") == []


async def test_levels_add_up_to_their_changes(ledger: Ledger) -> None:
    """The history explains every level: its changes, added up, are where it stands."""
    await ledger.create_account("acme", "free", "", NOW_MS)
    for number, value in enumerate((5_000, 1, 700)):
        change = Change("acme", "x", value if number % 2 else None, value, "", "k", NOW_MS + number)
        assert (await ledger.change_gauge(change, None)).fits
    rows = await ledger.gauge_history("acme", "x")
    (gauge,) = await ledger.gauges_of("acme")
    assert sum(row.delta_milli for row in rows) == gauge.value_milli == rows[0].value_milli == 701
