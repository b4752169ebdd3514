"""The admin API on accounts, keys and the audit: what it does, whom it lets do it, and what it says to bad input."""

from typing import Any

import pytest

from gateway.console.admin_endpoints import ENDPOINTS
from gateway.domain.faults import REVOKED_KEY, SUSPENDED_ACCOUNT, Fault
from gateway.ledger.ledger import Ledger
from gateway.telemetry.metrics import Metrics
from tests.support.admin_client import ROOT, TOKEN, AdminClient, admin_over
from tests.support.consoles import console_over


async def test_an_account_from_its_making_to_its_suspension(ledger: Ledger) -> None:
    """F7: a script makes, finds, moves, suspends and resumes an account, and each change counts for its keys."""
    async with admin_over(ledger) as admin:
        made = await admin.do("POST", "/accounts", {"id": "acme", "name": "Acme Ltd"}, 201)
        key = (await admin.do("POST", "/accounts/acme/keys", {"name": "laptop"}, 201))["key"]
        moved = await admin.do("PUT", "/accounts/acme/tier", {"tier": "premium"})
        assert (await admin.bench.directory.identify(key.encode())).account_id == "acme"
        await admin.do("POST", "/accounts/acme/suspend")
        admin.bench.directory.forget("acme")
        with pytest.raises(Fault) as refused:
            await admin.bench.directory.identify(key.encode())
        resumed = await admin.do("POST", "/accounts/acme/resume")

    assert (made["tier"], moved["tier"]) == ("free", "premium")
    assert refused.value.kind is SUSPENDED_ACCOUNT
    assert resumed["suspended"] is False


async def test_a_change_reaches_the_limiter_before_it_is_answered(ledger: Ledger) -> None:
    """F7: who has been told that a tier changed sees it count from the next request, not a second later."""
    async with admin_over(ledger) as admin:
        await admin.bench.account("acme")
        await admin.do("PUT", "/accounts/acme/tier", {"tier": "premium"})

        assert await ledger.pending_bumps() == []


async def test_accounts_are_listed_page_by_page(ledger: Ledger) -> None:
    """F7: every account is told once, whatever the size of a page; one that is skipped is never billed."""
    seen: list[str] = []
    async with admin_over(ledger) as admin:
        for number in range(7):
            await admin.bench.account(f"a{number}")
        page = await admin.get("/accounts?limit=3")
        while page["items"]:
            seen += [one["id"] for one in page["items"]]
            page = await admin.get(f"/accounts?limit=3&after={page['next']}") if page["next"] else {"items": []}

    assert seen == [f"a{number}" for number in range(7)]


async def test_a_key_is_shown_once_and_can_be_ended(ledger: Ledger) -> None:
    """F4, E12: the list tells every key without its secret; an expiry and a revocation count."""
    async with admin_over(ledger) as admin:
        await admin.bench.account("acme")
        made = await admin.do("POST", "/accounts/acme/keys", {"expires_at": "2026-12-01T00:00:00+01:00"}, 201)
        expired = await admin.do("PUT", f"/keys/{made['id']}/expiry", {"expires_at": "2026-11-20T00:00:00Z"})
        lasting = await admin.do("PUT", f"/keys/{made['id']}/expiry", {"expires_at": None})
        revoked = await admin.do("POST", f"/keys/{made['id']}/revoke")
        listed = await admin.send("GET", "/accounts/acme/keys")
        with pytest.raises(Fault) as refused:
            await admin.bench.directory.identify(made["key"].encode())

    assert made["expires_at"] == "2026-11-30T23:00:00Z"
    assert (expired["state"], lasting["state"], revoked["state"]) == ("expired", "active", "revoked")
    assert made["key"].split("_")[2] not in listed.text
    assert refused.value.kind is REVOKED_KEY


async def test_every_change_stands_in_the_audit(ledger: Ledger) -> None:
    """E8: who did what to which account, by which request, and what stood before; else nobody can be asked."""
    async with admin_over(ledger) as admin:
        answer = await admin.send("POST", "/accounts", {"id": "acme"}, **{"x-tollway-actor": "ann@example.com"})
        await admin.do("PUT", "/accounts/acme/tier", {"tier": "premium"})
        await admin.do("POST", "/accounts", {"id": "other"}, 201)
        mine = await admin.get("/audit?account=acme")
        first = await admin.get("/audit?limit=2")
        rest = await admin.get(f"/audit?limit=2&before={first['next']}")

    newest, oldest = mine["items"]
    assert (oldest["who"], oldest["action"], oldest["before"]) == ("admin:ann@example.com", "account", None)
    assert oldest["source"] == answer.headers["x-request-id"]
    assert (newest["who"], newest["before"]["tier"], newest["after"]["tier"]) == ("admin", "free", "premium")
    assert [one["account"] for one in first["items"] + rest["items"]] == ["other", "acme", "acme"]
    assert rest["next"] is None


async def test_nobody_without_the_token_is_served(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """C3: no endpoint reads or writes for an account's own key, a wrong token or none, and each try is counted."""
    logged: list[dict[str, Any]] = []
    monkeypatch.setattr("gateway.console.admin.log.warning", lambda event, **fields: logged.append({event: fields}))
    async with console_over(ledger, admin_token=TOKEN) as bench:
        own = await bench.account("acme")
        audited = await ledger.audit_log()
        tries = (("authorization", f"Bearer {own}"), ("authorization", f"Bearer {TOKEN}x"), ("x-api-key", TOKEN))
        for one in ENDPOINTS:
            path = one.path.replace("{account}", "acme").replace("{key}", own[3:15])
            for name, value in tries:
                body = {"tier": "premium", "account": "acme", "status": "active"}
                answer = await bench.client.request(one.method, ROOT + path, json=body, headers={name: value})
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admin_only"), one.path
        assert await ledger.audit_log() == audited

    keys = [entry["admin_refused"]["key"] for entry in logged]
    assert keys == [own[3:15], "", ""] * len(ENDPOINTS)
    assert own not in repr(logged)
    assert refusals(bench.metrics) == len(keys)


def refusals(metrics: Metrics) -> float:
    """How many were counted."""
    return metrics.snapshot().counters["tollway_admin_refused_total"][()]


async def test_without_a_token_there_is_no_admin_api(ledger: Ledger) -> None:
    """F7: a gateway whose operator set no token can't be administered over HTTP by anybody, nor with an empty token."""
    async with console_over(ledger) as bench:
        for headers in ({}, {"authorization": "Bearer "}):
            answer = await bench.client.get(f"{ROOT}/accounts", headers=headers)
            assert answer.status_code == 404


BAD: tuple[tuple[str, str, Any, int, str], ...] = (
    ("POST", "/accounts", {"id": "two words"}, 400, "1 to 128 letters, digits and . _ @ : - - at `$.id`"),
    ("POST", "/accounts", {"id": "acme\n"}, 400, "$.id"),
    ("POST", "/accounts", {"name": "x"}, 400, "`id`"),
    ("POST", "/accounts", {"id": "new", "teir": "free"}, 400, "`teir`"),
    ("POST", "/accounts", {"id": "new", "tier": "gone"}, 400, "free, premium, pro"),
    ("POST", "/accounts", {"id": "acme"}, 409, "acme"),
    ("PUT", "/accounts/acme/tier", {"tier": 5}, 400, "$.tier"),
    ("PUT", "/accounts/nobody/tier", {"tier": "free"}, 404, "nobody"),
    ("POST", "/accounts/acme/suspend", {"why": 1}, 400, "no body"),
    ("POST", "/accounts/acme/keys", {"expires_at": "tomorrow"}, 400, "$.expires_at"),
    ("POST", "/accounts/acme/keys", {"expires_at": "2026-12-01T00:00:00"}, 400, "$.expires_at"),
    ("PUT", "/keys/nokey/expiry", {"expires_at": None}, 404, "nokey"),
    ("PUT", "/keys/nokey/expiry", {}, 400, "`expires_at`"),
    ("GET", "/accounts?limit=0", None, 400, "$.limit"),
    ("GET", "/accounts?limit=x", None, 400, "$.limit"),
    ("GET", "/accounts?page=2", None, 400, "`page`"),
    ("GET", "/accounts/nobody/explain", None, 404, "nobody"),
)


async def test_bad_input_is_told_by_its_field(ledger: Ledger) -> None:
    """F7: whoever writes a script is told which field is wrong, and nothing is changed."""
    async with admin_over(ledger) as admin:
        await admin.bench.account("acme")
        audited = await ledger.audit_log()
        for method, path, body, status, names in BAD:
            answer = await admin.send(method, path, body)
            assert answer.status_code == status, (path, body, answer.text)
            assert names in answer.json()["error"]["message"], (path, body)
        assert await ledger.audit_log() == audited


async def test_a_body_that_is_no_json_is_refused(ledger: Ledger) -> None:
    """F7: foreign bytes end in an error that tells so, never in a crash or in an account."""
    async with admin_over(ledger) as admin:
        headers = {"authorization": f"Bearer {TOKEN}"}
        for raw in (b"{", b"\xff\xfe", b"[]", b"nul", b'{"id":"x"} y', b" " * 1_100_000):
            answer = await admin.bench.client.post(f"{ROOT}/accounts", content=raw, headers=headers)
            assert answer.status_code == (413 if len(raw) > 1_048_576 else 400), raw[:20]
        assert await ledger.list_accounts() == []


async def test_an_actor_that_is_no_name_is_refused(ledger: Ledger) -> None:
    """E8: what stands in the audit as a name was not made to look like another row."""
    async with admin_over(ledger) as admin:
        answer = await admin.send("POST", "/accounts", {"id": "acme"}, **{"x-tollway-actor": "ann (system)"})

    assert answer.status_code == 400


async def test_the_document_tells_of_every_endpoint(ledger: Ledger) -> None:
    """F7: clients are generated from the document: each reference in it resolves, each operation has one name."""

    def references(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(references, node))
        if not isinstance(node, dict):
            return set()
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*map(references, node.values()))

    async with admin_over(ledger) as admin:
        document = admin.document

    operations = [one for path in document["paths"].values() for one in path.values()]
    assert len(operations) == len(ENDPOINTS)
    assert len({one["operationId"] for one in operations}) == len(operations)
    told = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= told


async def test_an_answer_that_the_document_does_not_tell_of_is_found_out(ledger: Ledger) -> None:
    """The check of every answer above can fail: an unknown field and a wrong type are seen."""
    async with admin_over(ledger) as admin:
        await admin.bench.account("acme")
        answer = await admin.send("GET", "/accounts/acme")
        for wrong in (b'{"id": "acme"}', answer.content.replace(b"false", b"0")):
            answer._content = wrong
            with pytest.raises(AssertionError):
                AdminClient(admin.bench, admin.document).check("GET", "/accounts/acme", answer)
