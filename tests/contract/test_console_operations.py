"""Health, metrics, and the shape that every answer of the console has."""

import asyncio

import pytest

from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.ledger.ledger import Ledger
from gateway.telemetry.record import RequestRecord
from tests.support.consoles import console_over


async def test_live_until_stopping(ledger: Ledger) -> None:
    """F8: an orchestrator restarts what is not live; a gateway that drains says so and still answers."""
    async with console_over(ledger) as bench:
        assert (await bench.get("/health/live")).status_code == 200
    async with console_over(ledger, stopping=True) as bench:
        assert (await bench.get("/health/live")).status_code == 503
        assert (await bench.get("/health/ready")).json()["ready"] is False


async def test_ready_when_every_part_answers(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """F8: a load balancer sends traffic only here; the real ledger is asked, not assumed."""
    monkeypatch.setattr("gateway.console.operations._PROBE_S", 20)
    async with console_over(ledger) as bench:
        reply = await bench.get("/health/ready")

    assert reply.status_code == 200
    assert reply.json() == {"ready": True, "probes": {"limiter": {"ok": True}, "ledger": {"ok": True}}}


async def test_not_ready_names_each_part_and_hides_internals(monkeypatch: pytest.MonkeyPatch) -> None:
    """F8: operators see which part fails, strangers see no address; one hung part doesn't hang the answer."""

    async def hangs() -> None:
        await asyncio.Event().wait()

    async def silent() -> None:
        raise Fault(LIMITER_UNAVAILABLE, "connect to 10.0.0.7:6379 refused")

    async def breaks() -> None:
        raise OSError("/var/lib/secret")

    monkeypatch.setattr("gateway.console.operations._PROBE_S", 3)
    gone = Ledger.open("sqlite+aiosqlite:////nonexistent/ledger.db")
    probes = {"hangs": hangs, "limiter": silent, "breaks": breaks, "ledger": gone.ping}
    async with asyncio.timeout(20), console_over(gone, probes=probes) as bench:
        reply = await bench.get("/health/ready")
    await gone.close()

    assert reply.status_code == 503
    assert reply.json() == {
        "ready": False,
        "probes": {
            "hangs": {"ok": False, "code": "timeout"},
            "limiter": {"ok": False, "code": "limiter_unavailable"},
            "breaks": {"ok": False, "code": "failed"},
            "ledger": {"ok": False, "code": "ledger_unavailable"},
        },
    }


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
async def test_this_machine_reads_metrics(ledger: Ledger, host: str) -> None:
    """F8: Prometheus on the same machine scrapes without any set-up, in the text format it names."""
    async with console_over(ledger, client_host=host) as bench:
        bench.metrics.observe(RequestRecord(route="/v1/*", status=200, started_s=1.0, ended_s=2.0))
        reply = await bench.get("/metrics")

    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'tollway_requests_total{outcome="ok",route="/v1/*",status="200"} 1.0' in reply.text


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("203.0.113.9", {}),
        ("203.0.113.9", {"authorization": "Bearer wrong"}),
        ("203.0.113.9", {"authorization": "Basic s3cret"}),
        ("::ffff:203.0.113.9", {}),
        ("not an address", {}),
        ("127.0.0.1", {"x-forwarded-for": "203.0.113.9"}),
        ("127.0.0.1", {"forwarded": "for=203.0.113.9"}),
    ],
)
@pytest.mark.parametrize("admin_token", ["", "s3cret"])
async def test_strangers_read_no_metrics(ledger: Ledger, host: str, headers: dict[str, str], admin_token: str) -> None:
    """F8: models, tiers and load are the operator's business; a proxy on this machine is no pass for its clients."""
    async with console_over(ledger, client_host=host, admin_token=admin_token) as bench:
        reply = await bench.get("/metrics", **headers)

    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "admin_only")
    assert "tollway_" not in reply.text


async def test_the_admin_token_reads_metrics_from_anywhere(ledger: Ledger) -> None:
    """F8: a Prometheus on another machine scrapes with the token as its bearer token."""
    async with console_over(ledger, admin_token="s3cret") as bench:
        reply = await bench.get("/metrics", "s3cret")

    assert reply.status_code == 200


@pytest.mark.parametrize("path", ["", "/", "/usage/", "/usages", "/usage/events", "/health", "/metrics/x"])
async def test_a_path_that_is_not_there(ledger: Ledger, path: str) -> None:
    """F7: a mistyped path is a 404 in the one error shape, never a redirect or an HTML page."""
    async with console_over(ledger) as bench:
        reply = await bench.get(path)

    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (404, "not_found")
    assert error["request_id"] == reply.headers["x-request-id"]


async def test_a_method_that_is_not_taken(ledger: Ledger) -> None:
    """C3: usage can't be written through any client API; the answer says which methods there are."""
    async with console_over(ledger) as bench:
        reply = await bench.client.post("/_tollway/usage", json={"used": 0})

    assert (reply.status_code, reply.json()["error"]["code"]) == (405, "method_not_allowed")
    assert "GET" in reply.headers["allow"]


async def test_every_answer_has_an_id_and_stays_out_of_caches(ledger: Ledger) -> None:
    """F8: a shared cache must never hand one account's usage to another; every answer can be found in the log."""
    async with console_over(ledger, client_host="127.0.0.1") as bench:
        key = await bench.account("acme")
        replies = [
            await bench.get("/usage", key),
            await bench.get("/usage"),
            await bench.get("/nowhere"),
            await bench.get("/metrics"),
            await bench.get("/health/ready"),
        ]

    assert all(reply.headers["cache-control"] == "no-store" for reply in replies)
    assert len({reply.headers["x-request-id"] for reply in replies}) == len(replies)


async def test_what_nobody_foresaw_is_a_plain_500(ledger: Ledger, capfd: pytest.CaptureFixture[str]) -> None:
    """F8: a defect shows the caller nothing of its inside, in the same shape as every error."""

    async def breaks(_: str) -> None:
        raise ZeroDivisionError("inner text")

    async with console_over(ledger, peek=breaks) as bench:
        reply = await bench.get("/usage", await bench.account("acme"))

    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
    assert "inner text" not in reply.text
    assert reply.headers["x-request-id"] == reply.json()["error"]["request_id"]


async def test_a_ledger_that_is_away_is_told_as_such() -> None:
    """F8: a caller is told to come back, not that the key is wrong."""
    gone = Ledger.open("sqlite+aiosqlite:////nonexistent/ledger.db")
    async with console_over(gone) as bench:
        reply = await bench.get("/usage", "tw_abcdefghijkl_" + "s" * 40)
    await gone.close()

    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "ledger_unavailable")
