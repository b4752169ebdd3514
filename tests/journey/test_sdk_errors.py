"""Every official SDK, every fault: the SDK's own error, whole, and a retry where and when it helps (rows B1, F2).

The tables of docs/faults.md say what each SDK makes of each status; here the SDKs themselves are asked.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.dialects.registry import DIALECTS
from gateway.domain import faults
from gateway.domain.decisions import Refused
from gateway.domain.faults import CLIENT_GONE, Fault, FaultKind
from gateway.edge.admission import Admission
from gateway.edge.exchange import Exchange
from gateway.edge.reply import send_refusal
from tests.house.test_docs_faults import PAGE, rows
from tests.support.openai_endpoints import response
from tests.support.openai_wire import completion, http
from tests.support.scripted_upstream import SETTINGS, Streamed, scripted_upstream
from tests.support.sdk_callers import SDKS, Raised, Sdk, raised_by, waits_of_sdks
from tests.support.shifted_clock import shifted_clock
from tests.support.stand import stand
from tests.support.valkey import ValkeyServer
from tests.support.wire_recordings import whole

ROUTES = """routes:
  - {{ path: /v1/chat/completions, methods: [POST], upstream: anthropic, dialect: openai, default_max_tokens: 100 }}
  - {{ path: /v1/responses, methods: [POST], upstream: anthropic, dialect: openai-responses, default_max_tokens: 100 }}
"""
EVERY_ROUTE = SETTINGS.replace("routes:\n", ROUTES)
KINDS = [kind for kind in vars(faults).values() if isinstance(kind, FaultKind) and kind is not CLIENT_GONE]
"""All that anybody is left to read."""

STATUSES = {row[0]: row[1:] for row in rows("What official SDKs make of them")}
COLUMNS = ("openai", "anthropic", "google-genai")
GOOGLES_OWN = {408, 429, 500, 502, 503, 504}
"""At which `google-genai` asks again where it has `retry_options`; it reads no header."""

TOLD_TO_WAIT = {429, 503}

GOOD = {
    "openai": completion(),
    "openai-responses": msgspec.json.encode(response("hello there")),
    "anthropic": whole("anthropic/anthropic-text"),
    "gemini": whole("gemini/google-text"),
}
every_sdk = pytest.mark.parametrize("sdk", [pytest.param(sdk, id=name) for name, sdk in SDKS.items()])


def error_of(sdk: Sdk, row: str) -> str:
    """The class that a table names."""
    return STATUSES[row][COLUMNS.index(sdk.column)].strip("`")


def attempts_of(sdk: Sdk, status: int, *, again: bool) -> int:
    """How often the SDK asks in all."""
    if sdk.column == "google-genai":
        again = status in GOOGLES_OWN
    return sdk.attempts if again else 1


def told(sdk: Sdk, kind: FaultKind, request_id: str) -> Raised:
    """What an app has to be able to read of a fault."""
    fault = Fault(kind)
    error = msgspec.json.decode(DIALECTS[sdk.dialect].fault_body(fault, request_id))["error"]
    name = error_of(sdk, str(kind.status))
    if sdk.column == "google-genai":
        return Raised(name, kind.status, error["status"], kind.code, kind.public, request_id)
    code = kind.code if sdk.column == "openai" else ""
    return Raised(name, kind.status, error["type"], code, kind.public, request_id)


@every_sdk
async def test_every_fault_is_the_sdks_own_error(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, sdk: Sdk
) -> None:
    """B1, F2: for each fault there is: the class that apps catch, with type, code, text and an id to quote; asked again
    after exactly what it was told, and not at all where that can't help. A new fault is in this test by being there.
    """  # noqa: D205
    waits = waits_of_sdks(monkeypatch)
    met: list[str] = []
    now = Fault(faults.INTERNAL)

    async def admit(_: Admission, exchange: Exchange, *_rest: object) -> None:
        met.append(exchange.request_id)
        raise Fault(now.kind, "internal text", retry_after_s=now.retry_after_s)

    monkeypatch.setattr(Admission, "admit", admit)
    async with (
        stand(tmp_path, valkey, 1, settings=EVERY_ROUTE) as here,
        sdk.caller(here.url, await here.account(), waits) as ask,
    ):
        for kind in KINDS:
            for wait_s in (None, 7, 600) if kind.status in TOLD_TO_WAIT else (None,):
                now = Fault(kind, retry_after_s=wait_s)
                met.clear()
                waits.asked_s.clear()
                raised = await raised_by(ask)

                assert raised == told(sdk, kind, met[-1])
                again = STATUSES[str(kind.status)][3] != "no" and not kind.final
                in_time = wait_s is None or wait_s <= 60
                assert len(met) == attempts_of(sdk, kind.status, again=again and in_time), (kind.code, wait_s)
                assert len(waits.asked_s) == len(met) - 1
                if sdk.column == "google-genai":
                    continue
                if wait_s is not None or kind.status == 503:
                    assert set(waits.asked_s) <= {wait_s or 1.0}, (kind.code, wait_s)
                assert all(0.3 < each_s <= 8 for each_s in waits.asked_s)


@contextlib.asynccontextmanager
async def refusals_told(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Refused]]:
    """Every refusal that is sent from now on."""
    refusals: list[Refused] = []

    async def sent(exchange: Exchange, refused: Refused) -> None:
        refusals.append(refused)
        await send_refusal(exchange, refused)

    monkeypatch.setattr("gateway.edge.proxy.send_refusal", sent)
    yield refusals


TIERS = """
  minute: {limits: {requests: {minute: 1}}}
  hour: {limits: {requests: {hour: 1}}}
  day: {limits: {requests: {day: 1}}}
  month: {limits: {requests: {month: 1}}}
  bought: {limits: {requests: {day: {maximum: 1, remedy: pay}}}}
  large: {limits: {tokens: {day: 20}}}
  none: {limits: {requests: {hour: 100}}, concurrency: 0}
  free: {limits: {requests: {hour: 100}}, concurrency: 1}
"""
REFUSALS = {
    "hour": "a full window that opens later",
    "day": "a full window that opens later",
    "month": "only paying helps",
    "bought": "only paying helps",
    "large": "larger than the limit",
    "none": "only paying helps",
    "free": "as many run as may",
}
"""Which row of the table tells of the refusal of a tier above."""

NO_WAIT = {("anthropic", "only paying helps"): 402, ("google-genai", "only paying helps"): 403}
NO_WAIT |= {("google-genai", "larger than the limit"): 400}
"""Statuses that no client takes for a wait, where the API has one; all else is 429."""


@every_sdk
async def test_a_full_window_is_waited_for_to_the_second(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, sdk: Sdk
) -> None:
    """B1: half a minute before the window ends the SDK is told so, sleeps exactly as long, and its next request is
    served: the app notices nothing but the wait. Google's SDK reads no header, and says what it was told.
    """  # noqa: D205
    clock = shifted_clock(monkeypatch)
    waits = waits_of_sdks(monkeypatch, clock)
    async with (
        refusals_told(monkeypatch) as refusals,
        scripted_upstream(http(GOOD[sdk.dialect])) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=EVERY_ROUTE, tiers=TIERS) as here,
        sdk.caller(here.url, await here.account(tier="minute"), waits) as ask,
    ):
        clock.put(window_s=60, left_s=30)
        first, second = await raised_by(ask), await raised_by(ask)
        served = len(upstream.asked)

    row = "a full window that opens within 60 s"
    assert first is None
    if sdk.column == "google-genai":
        assert second is not None
        assert (second.error, second.status, second.kind) == (error_of(sdk, row), 429, "RESOURCE_EXHAUSTED")
        assert served == 1
    else:
        assert second is None
        assert waits.asked_s == [float(refused.retry_after_s or 0) for refused in refusals]
        assert (len(refusals), served) == (1, 2)
        assert 1 <= waits.asked_s[0] <= 30


@every_sdk
async def test_what_waiting_can_not_mend_is_asked_once(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, sdk: Sdk
) -> None:
    """B1: a day that is full, a month that is used up, a request that no window can hold: the SDK raises at once, and
    each reads as what it is. Where one of the account's requests runs, it comes back each second.
    """  # noqa: D205
    clock = shifted_clock(monkeypatch)
    waits = waits_of_sdks(monkeypatch)
    running = Streamed([b": held\n\n", b"data: [DONE]\n\n"], paced=True)
    async with (
        refusals_told(monkeypatch) as refusals,
        scripted_upstream(running, http(GOOD[sdk.dialect])) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=EVERY_ROUTE, tiers=TIERS) as here,
    ):
        clock.put(window_s=3600, left_s=1830)
        key = await here.account("busy")
        body: dict[str, Any] = {"model": "m", "messages": [], "stream": True}
        headers = {"authorization": f"Bearer {key}"}
        async with here.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as held:
            assert held.status_code == 200
            for tier, row in REFUSALS.items():
                mine = key if tier == "free" else await here.account(tier, tier)
                refusals.clear()
                waits.asked_s.clear()
                async with sdk.caller(here.url, mine, waits) as ask:
                    if tier not in {"large", "none", "free"}:
                        assert await raised_by(ask) is None
                    raised = await raised_by(ask)
                status = NO_WAIT.get((sdk.column, row), 429)

                assert raised is not None
                assert (raised.error, raised.status) == (error_of(sdk, row), status), tier
                assert len(refusals) == attempts_of(sdk, status, again=STATUSES[row][3] != "no"), tier
                assert sdk.column == "google-genai" or set(waits.asked_s) <= {1.0}
                assert ("larger plan" in raised.message) is (row == "only paying helps")
                assert raised.request_id
            upstream.go_on.release()


UPSTREAMS: dict[str, tuple[str, str, list[float] | None]] = {
    "402": ("402 Payment Required", "", []),
    "429": ("429 Too Many Requests", "retry-after: 7\r\n", [7.0, 7.0]),
    "500": ("500 Internal Server Error", "", None),
    "529": ("529 Overloaded", "retry-after: 3\r\n", [3.0, 3.0]),
}


def upstreams_error(dialect: str, status: int) -> bytes:
    """An error as such an upstream words it."""
    error: dict[str, Any] = {"message": "come again", "type": "overloaded_error", "param": None, "code": "busy"}
    if dialect == "gemini":
        error = {"code": status, "message": "come again", "status": "UNAVAILABLE"}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": "req_up"})


@every_sdk
@pytest.mark.parametrize("status", UPSTREAMS)
async def test_an_upstreams_error_is_the_upstreams(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, sdk: Sdk, status: str
) -> None:
    """F2, F5: what the provider says comes through as if nobody stood between: its class, its text, its wait, its
    number of tries, and the account is charged for none of them.
    """  # noqa: D205
    line, fields, asked_s = UPSTREAMS[status]
    waits = waits_of_sdks(monkeypatch)
    failing = http(upstreams_error(sdk.dialect, int(status)), status=line, fields=fields)
    async with (
        scripted_upstream(failing) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=EVERY_ROUTE) as here,
    ):
        key = await here.account()
        async with sdk.caller(here.url, key, waits) as ask:
            raised = await raised_by(ask)
        used = await here.client.get("/_tollway/usage", headers={"authorization": f"Bearer {key}"})

    assert raised is not None
    assert (raised.error, raised.status, raised.message) == (error_of(sdk, status), int(status), "come again")
    assert len(upstream.asked) == attempts_of(sdk, int(status), again=STATUSES[status][3] != "no")
    if sdk.column != "google-genai" and asked_s is not None:
        assert waits.asked_s == asked_s
    assert [limit["used"] for limit in used.json()["limits"] if limit["used"]] == []


def test_the_table_tells_of_every_status_and_of_nothing_else() -> None:
    """Whoever writes an app's error handling reads one table: none of the statuses may lack, none may be made up."""
    passed_on = {"402", "529"}
    refused = {"a full window that opens within 60 s", *REFUSALS.values()}

    assert set(STATUSES) == {str(kind.status) for kind in KINDS} | passed_on | refused | {"inside a stream"}
    assert passed_on.isdisjoint({str(kind.status) for kind in KINDS})


def test_faults_that_stay_are_listed() -> None:
    """The codes that are never worth another try are the ones that the page names."""
    paragraph = PAGE.partition("Asked once all the same")[2].partition("\n\n")[0]

    assert {kind.code for kind in KINDS if kind.final} == {kind.code for kind in KINDS if f"`{kind.code}`" in paragraph}
