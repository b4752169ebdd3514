"""Routes that are open to some tiers only, their schedules, and what usage is recorded under."""

from datetime import UTC, datetime
from pathlib import Path

from gateway.domain.audit import SYSTEM
from gateway.domain.terms import Terms
from gateway.ledger.outbox import apply_outbox
from tests.support.odd_peer import always, odd_peer
from tests.support.openai_wire import http
from tests.support.stand import SETTINGS, now_ms, stand
from tests.support.valkey import ValkeyServer

ROUTES = """routes:
  - {{ path: /snapshots/*, upstream: main, dialect: plain, needs: snapshots, endpoint: "/snapshots/{{id}}" }}
  - {{ path: /paid, upstream: main, dialect: plain, tiers: [premium, enterprise] }}
  - {{ path: /sync, upstream: main, dialect: plain, schedule: sync }}
  - {{ path: /open/*, upstream: open, dialect: plain, preflight: pass }}
tiers:"""
GATED = SETTINGS.partition("routes:")[0] + ROUTES + SETTINGS.partition("tiers:")[2]


def tiers() -> str:
    """Tiers of which one has a schedule that is shut now."""
    hour = (datetime.now(UTC).hour + 12) % 24
    return f"""
  free: {{limits: {{requests: {{hour: 1000}}}}}}
  premium: {{features: {{snapshots: true}}, schedules: {{sync: {{at: ["{hour:02}:00"]}}}}}}
  enterprise: {{features: {{snapshots: true}}, schedules: {{sync: {{at: ["00:00", "06:00"], on_request: true}}}}}}
"""


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"authorization": f"Bearer {key}"}


async def test_a_route_of_other_tiers_says_which(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D2: "routes open to some tiers only": the caller is told what would open it, is charged nothing, and the upstream
    hears nothing. Whoever sells the dearer tier is hurt if this breaks.
    """  # noqa: D205
    async with (
        odd_peer(always(http(b"ok"))) as peer,
        stand(tmp_path, valkey, peer.port, tiers=tiers(), settings=GATED) as here,
    ):
        free = await here.account()
        for path in ("/snapshots/7", "/paid"):
            answer = await here.client.get(path, headers=bearer(free))
            error = answer.json()["error"]

            assert (answer.status_code, error["code"]) == (403, "route_not_in_tier")
            assert "not open to the tier free. It is open to premium, enterprise." in error["message"]
        assert peer.connections == 0
        usage = await here.client.get("/_tollway/usage", headers=bearer(free))
        assert usage.json()["limits"][0]["used"] == 0


async def test_a_change_of_tier_opens_and_shuts_from_the_next_request(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D2, A3: who has just paid is let in at once, and who has cancelled is not let in for another minute."""
    async with (
        odd_peer(always(http(b"ok"))) as peer,
        stand(tmp_path, valkey, peer.port, tiers=tiers(), settings=GATED) as here,
    ):
        key = await here.account()
        statuses = []
        for tier in ("free", "premium", "free", "enterprise"):
            await here.ledger.set_tier("acme", tier, now_ms())
            await apply_outbox(here.ledger, here.gateway._limiter.bump)
            statuses.append((await here.client.get("/snapshots/7", headers=bearer(key))).status_code)

        assert statuses == [403, 200, 403, 200]


async def test_a_feature_of_the_account_itself_counts(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D2, C5: what was sold to one account by an override opens the route to that account."""
    async with (
        odd_peer(always(http(b"ok"))) as peer,
        stand(tmp_path, valkey, peer.port, tiers=tiers(), settings=GATED) as here,
    ):
        key = await here.account()
        await here.ledger.set_overrides("acme", Terms(features={"snapshots": True}), SYSTEM, now_ms())
        await apply_outbox(here.ledger, here.gateway._limiter.bump)
        answer = await here.client.get("/snapshots/7", headers=bearer(key))

        assert answer.status_code == 200
        assert (await here.event(answer.headers["x-request-id"])).endpoint == "/snapshots/{id}"


async def test_a_route_keeps_to_the_schedule_of_the_tier(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D2: schedules per tier are told as entitlements, and a route may keep to one."""
    async with (
        odd_peer(always(http(b"ok"))) as peer,
        stand(tmp_path, valkey, peer.port, tiers=tiers(), settings=GATED) as here,
    ):
        keys = {tier: await here.account(tier, tier) for tier in ("free", "premium", "enterprise")}
        got = {tier: await here.client.get("/sync", headers=bearer(key)) for tier, key in keys.items()}

        assert {tier: answer.status_code for tier, answer in got.items()} == {
            "free": 403,
            "premium": 403,
            "enterprise": 200,
        }
        assert got["free"].json()["error"]["code"] == "route_not_in_tier"
        assert got["premium"].json()["error"]["code"] == "outside_schedule"
        told = (await here.client.get("/_tollway/usage", headers=bearer(keys["premium"]))).json()["schedules"]["sync"]
        assert told["next"] in got["premium"].json()["error"]["message"]
        assert (told["open"], told["open_minutes"], told["on_request"]) == (False, 60, False)


async def test_a_preflight_goes_on_without_anyones_key(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1: browsers send no credential with it; where the route says so it is the upstream's to answer, and it gets
    nobody's key. Anything else without a key is refused.
    """  # noqa: D205
    fields = "access-control-allow-origin: *\r\n"
    asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
    async with (
        odd_peer(always(http(b"", status="204 No Content", fields=fields))) as peer,
        stand(tmp_path, valkey, peer.port, tiers=tiers(), settings=GATED) as here,
    ):
        passed = await here.client.options("/open/x", headers=asked)
        assert (passed.status_code, passed.headers["access-control-allow-origin"]) == (204, "*")
        for path, headers in (("/open/x", {"origin": "https://app.example"}), ("/paid", asked)):
            assert (await here.client.options(path, headers=headers)).status_code == 401
        assert (await here.client.post("/open/x", headers=asked)).status_code == 401
        assert peer.connections == 1
