"""The admin API on what accounts have bought and been given, and what it explains of them."""

from typing import Any

from gateway.domain.audit import SYSTEM
from gateway.domain.decisions import Counter
from gateway.domain.entitlements import Grant
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.domain.limits import Unit
from gateway.domain.subscriptions import Status, Subscription
from gateway.ledger.ledger import Ledger
from tests.support.admin_client import TOKEN, admin_over
from tests.support.consoles import NOW_MS, console_over
from tests.support.ledgers import NOON_MS, an_event

PRO = {
    "account": "acme",
    "tier": "pro",
    "status": "active",
    "period_start": "2026-11-01T00:00:00Z",
    "period_end": "2026-12-01T00:00:00Z",
    "terms": {"limits": {"tokens/period": 80_000}},
}


def limits_of(explained: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Limits by name."""
    return {limit["name"]: limit for limit in explained["limits"]}


async def test_a_subscription_from_its_making_to_its_end(ledger: Ledger) -> None:
    """E2, D3: what is put is told as it is, gives its tier at once, and is over when it is ended."""
    async with admin_over(ledger) as admin:
        await admin.bench.account("acme")
        put = await admin.do("PUT", "/subscriptions/s1", PRO)
        assert await admin.get("/subscriptions/s1") == put
        assert (await admin.get("/accounts/acme/explain"))["tier"] == "pro"
        changed = await admin.do("PUT", "/subscriptions/s1", PRO | {"status": "cancelled"})
        until = (await admin.get("/accounts/acme/explain"))["next_change_at"]
        ended = await admin.do("POST", "/subscriptions/s1/end")
        after = await admin.get("/accounts/acme/explain")
        listed = await admin.get("/subscriptions")

    assert {name: put[name] for name in PRO} == PRO
    assert (put["source"], changed["status"], until) == ("manual", "cancelled", "2026-12-01T00:00:00Z")
    assert ended["expires_at"] == "2026-11-21T12:30:00Z"
    assert (after["tier"], after["kind"]) == ("free", "free")
    assert "over at 2026-11-21T12:30:00Z" in after["reason"]
    assert [one["id"] for one in listed["items"]] == ["s1"]


async def test_a_subscription_of_stripe_is_stripes(ledger: Ledger) -> None:
    """E10: what an operator changed here Stripe's next event would undo, so that it is refused and said why."""
    async with admin_over(ledger) as admin:
        await admin.bench.account("acme")
        bought = Subscription("sub_1", "acme", "pro", Status.ACTIVE, source="stripe", updated_ms=5)
        await ledger.upsert_subscription(bought, SYSTEM, NOW_MS)
        for method, path, body in (("PUT", "", PRO), ("POST", "/end", {})):
            answer = await admin.send(method, f"/subscriptions/sub_1{path}", body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "kept_elsewhere")
        assert await ledger.subscription("sub_1") is not None

    assert "stripe" in answer.json()["error"]["message"]


async def test_addons_and_overrides_are_set_and_told(ledger: Ledger) -> None:
    """A1: what is given by hand counts at once; the same add-on again adds nothing, and an override is replaced."""
    pack = {"id": "pack-1", "unit": "requests", "amount": 7, "note": "sorry"}
    async with admin_over(ledger) as admin:
        await admin.bench.account("acme")
        first = await admin.do("POST", "/accounts/acme/addons", pack, 201)
        again = await admin.do("POST", "/accounts/acme/addons", pack | {"amount": 9_000}, 201)
        made = await admin.do("POST", "/accounts/acme/addons", {"unit": "tokens", "amount": -5}, 201)
        await admin.do("PUT", "/accounts/acme/overrides", {"limits": {"tokens/day": 9}})
        overrides = await admin.do(
            "PUT", "/accounts/acme/overrides", {"limits": {"requests/hour": 90}, "concurrency": None}
        )
        assert await admin.get("/accounts/acme/overrides") == overrides
        told = await admin.get("/accounts/acme/addons")
        explained = await admin.get("/accounts/acme/explain")

    assert (first.pop("added"), again.pop("added")) == (True, False)
    assert first == again
    assert sorted(one["id"] for one in told["items"]) == sorted(["pack-1", made["id"]])
    assert overrides == {"limits": {"requests/hour": 90}, "concurrency": None}
    assert limits_of(explained)["requests/hour"]["limit"] == 97
    assert limits_of(explained)["tokens/day"]["limit"] == 1_000
    assert explained["concurrency"] is None


BAD: tuple[tuple[str, str, Any, int, str], ...] = (
    ("PUT", "/subscriptions/s1", PRO | {"status": "gold"}, 400, "`$.status`; it is one of free, active,"),
    ("PUT", "/subscriptions/s1", PRO | {"tier": "gold"}, 400, "gold"),
    ("PUT", "/subscriptions/s1", PRO | {"account": "nobody"}, 404, "nobody"),
    ("PUT", "/subscriptions/s1", PRO | {"period_end": PRO["period_start"]}, 400, "`period_end`"),
    ("PUT", "/subscriptions/s1", PRO | {"terms": {"limits": {"tokens/decade": 1}}}, 400, "tokens/decade"),
    ("POST", "/subscriptions/s9/end", {}, 404, "s9"),
    ("PUT", "/accounts/acme/overrides", {"limits": {"tokens/day": -1}}, 400, "$.limits[...]"),
    ("PUT", "/accounts/acme/overrides", {"limits": {"day": 1}}, 400, "`day`"),
    ("PUT", "/accounts/nobody/overrides", {}, 404, "nobody"),
    ("POST", "/accounts/acme/addons", {"unit": "tokens", "amount": 0}, 400, "`amount`"),
    ("POST", "/accounts/acme/addons", {"unit": "euros", "amount": 1}, 400, "$.unit"),
    ("POST", "/accounts/acme/addons", {"unit": "tokens", "amount": 2**53}, 400, "$.amount"),
    ("POST", "/accounts/nobody/addons", {"unit": "tokens", "amount": 1}, 404, "nobody"),
    ("GET", "/accounts/nobody/addons", None, 404, "nobody"),
)


async def test_bad_input_is_told_by_its_field(ledger: Ledger) -> None:
    """F7: a limit misspelt in a script is told so, where it would else leave an account unlimited; nothing changes."""
    async with admin_over(ledger) as admin:
        await admin.bench.account("acme")
        audited = await ledger.audit_log()
        for method, path, body, status, names in BAD:
            answer = await admin.send(method, path, body)
            assert answer.status_code == status, (path, body, answer.text)
            assert names in answer.json()["error"]["message"], (path, body, answer.text)
        assert await ledger.audit_log() == audited


async def test_an_add_on_of_another_account_is_not_told(ledger: Ledger) -> None:
    """C3: an id that another account's add-on has is refused; taken for done, a customer would lack what was bought."""
    async with admin_over(ledger) as admin:
        await admin.bench.account("acme")
        await admin.bench.account("other")
        await ledger.add_grant(Grant("pack-1", "other", Unit.TOKENS, 7), SYSTEM, NOW_MS)
        answer = await admin.send("POST", "/accounts/acme/addons", {"id": "pack-1", "unit": "tokens", "amount": 7})

    assert (answer.status_code, "`id`" in answer.text) == (400, True)


async def test_explain_tells_where_each_limit_comes_from(ledger: Ledger) -> None:
    """D9: tier, terms, override, add-on, use and reset of each limit are told apart, from the live counters."""
    async with admin_over(ledger) as admin:
        await admin.bench.account("acme")
        await admin.do("PUT", "/subscriptions/s1", PRO)
        await admin.do("PUT", "/accounts/acme/overrides", {"limits": {"tokens/lifetime": None, "requests/day": 10}})
        await admin.do("POST", "/accounts/acme/addons", {"unit": "tokens", "amount": 500}, 201)
        start_s = NOON_MS // 1000 - 12 * 3600 - 20 * 86_400
        mark = await admin.bench.limiter.flushed_mark("acme", 1.0)
        counters = (Counter(f"tokens/period@{start_s}", start_s, 80_499), Counter("requests/day", start_s, 3))
        assert await admin.bench.limiter.hydrate("acme", 5, counters, NOON_MS, mark)
        explained = await admin.get("/accounts/acme/explain")

    limits = limits_of(explained)
    assert limits["tokens/period"] == {
        "name": "tokens/period",
        "tier": 50_000,
        "terms": 80_000,
        "override": None,
        "addons": 500,
        "limit": 80_500,
        "used": 80_499,
        "remaining": 1,
        "resets_at": "2026-12-01T00:00:00Z",
        "remedy": "pay",
    }
    assert (limits["requests/day"]["tier"], limits["requests/day"]["override"]) == (None, 10)
    assert explained["unbounded"] == ["tokens/lifetime"]
    assert (explained["counted_by"], explained["own_tier"], explained["running"]) == ("limiter", "free", 0)
    verdict = explained["verdict"]
    assert (verdict["admitted"], verdict["code"], verdict["retry_after_s"]) == (False, "insufficient_quota", None)


async def test_explain_tells_what_a_request_would_be_told(ledger: Ledger) -> None:
    """D9: support reads the answer that the customer gets: admitted, wait, suspended, or a plan that is not there."""
    async with admin_over(ledger) as admin:
        await admin.bench.account("acme", "premium")
        await admin.bench.account("lost", "gone")
        fresh = await admin.get("/accounts/acme/explain")
        fine = fresh["verdict"]
        await ledger.take_events([an_event(f"r{i}", admitted_ms=NOW_MS - 60_000) for i in range(500)])
        full = (await admin.get("/accounts/acme/explain"))["verdict"]
        await admin.do("POST", "/accounts/acme/suspend")
        suspended = (await admin.get("/accounts/acme/explain"))["verdict"]
        lost = await admin.get("/accounts/lost/explain")

    assert (fine["admitted"], fine["status"]) == (True, 200)
    assert (fresh["running"], fresh["counted_by"]) == (0, "ledger")
    assert (full["code"], full["retry_after_s"]) == ("rate_limit_exceeded", 1_800)
    assert (suspended["status"], suspended["code"]) == (403, "account_suspended")
    assert (lost["verdict"]["code"], lost["limits"]) == ("unknown_tier", [])


async def test_explain_answers_while_the_limiter_is_silent(ledger: Ledger) -> None:
    """D9: with Redis away an operator still sees the plan, and that the counts are the ledger's."""

    async def silent(_: str) -> None:
        raise Fault(LIMITER_UNAVAILABLE)

    async with console_over(ledger, admin_token=TOKEN, peek=silent) as bench:
        await bench.account("acme")
        told = (await bench.get("/admin/accounts/acme/explain", TOKEN)).json()

    assert (told["counted_by"], told["running"], told["verdict"]["admitted"]) == ("ledger", None, False)


async def test_tiers_are_told_as_they_are_in_force(ledger: Ledger) -> None:
    """D9: what the file leaves out is told as well, so that nobody has to know the defaults."""
    async with admin_over(ledger) as admin:
        tiers = {one["name"]: one for one in (await admin.get("/tiers"))["items"]}

    assert list(tiers) == ["free", "premium", "pro"]
    assert (tiers["free"]["is_default"], tiers["free"]["when_unavailable"]) == (True, "deny")
    assert tiers["pro"]["limits"][0] == {"name": "tokens/period", "maximum": 50_000, "remedy": "pay"}
    assert tiers["pro"]["prices"] == [
        {"interval": "month", "cents": 1_900, "currency": "usd", "stripe_price": "price_1"}
    ]
