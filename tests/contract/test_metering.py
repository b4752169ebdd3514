"""The metering API (B1): apps that call their upstream by themselves are held to the same limits, to the token."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.accounts import ApiKey
from gateway.domain.key_terms import KeyTerms
from gateway.domain.usage import CountedBy, Outcome
from gateway.identity.keys import new_key
from tests.support.metering import NOBODY, TIERS, App, app_beside
from tests.support.own_usage import limit_of
from tests.support.shifted_clock import shifted_clock
from tests.support.stand import now_ms, stand
from tests.support.until import until
from tests.support.valkey import ValkeyServer


async def test_reserve_and_settle_charge_what_was_used(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B1: the estimate is held meanwhile, the true usage stays, in limiter, own usage and ledger alike."""
    async with app_beside(tmp_path, valkey) as app:
        held = await app.reserve("r1", 10, 90, model="gpt-tiny")
        assert (held.status_code, held.json()["state"]) == (200, "held")
        assert held.json()["held"] == {"requests/day": 1, "tokens/day": 100, "tokens/month": 100}
        assert held.headers["x-ratelimit-remaining-tokens"] == "900"
        assert (await app.used(), await app.running()) == (100, 1)

        settled = await app.settle("r1", 9, 21)

        assert (settled.status_code, settled.json()["state"], settled.json()["tokens"]) == (200, "settled", 30)
        assert settled.headers["x-ratelimit-remaining-tokens"] == "970"
        assert (await app.used(), await app.used("requests/day"), await app.running()) == (30, 1, 0)
        event = await app.here.event(app.wire_id("r1"))
        assert (event.input_tokens, event.output_tokens, event.requests, event.model) == (9, 21, 1, "gpt-tiny")
        assert (event.route, event.counted_by, event.outcome) == ("metering", CountedBy.APP, Outcome.OK)
        assert (event.estimated_tokens, event.status) == (100, 200)
        assert (await limit_of(app.here, app.key, "tokens/day"))["used"] == 30
        told = await app.here.client.get("/_tollway/usage/events/r1", headers=app.headers)
        assert (told.status_code, told.json()["tokens"]) == (200, 30)


async def test_a_refusal_is_the_proxys_own(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B1: 429 before the upstream is called, with the body and `retry-after` that every SDK knows; nothing is taken."""
    async with app_beside(tmp_path, valkey) as app:
        refused = await app.reserve("r1", 10, 991)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert refused.headers["x-should-retry"] == "false"

        assert (await app.reserve("r2", 10, 900)).status_code == 200
        refused = await app.reserve("r3", 10, 90)

        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        assert (await app.used(), await app.running()) == (910, 1)
        assert (await app.settle("r3")).status_code == 404


async def test_fifty_at_once_never_pass_a_limit(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B1: of 50 reserves of 100 tokens that come at once, a limit of 1,000 takes exactly ten."""
    async with app_beside(tmp_path, valkey) as app:
        answers = await asyncio.gather(*[app.reserve(f"r{number}") for number in range(50)])

        assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 40
        assert (await app.used(), await app.running()) == (1000, 10)
        taken = [answer.json()["request_id"] for answer in answers if answer.status_code == 200]
        await asyncio.gather(*[app.settle(request_id, 1, 2) for request_id in taken])
        assert (await app.used(), await app.running()) == (30, 0)


async def test_concurrency_counts_reservations(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B1: an account's running requests are bounded wherever they run; one that is released makes room."""
    async with app_beside(tmp_path, valkey, "narrow") as app:
        assert [(await app.reserve(name)).status_code for name in "abc"] == [200, 200, 429]

        released = await app.post("release", request_id="a")

        assert (released.status_code, released.json()["state"], released.json()["tokens"]) == (200, "released", 0)
        assert (await app.reserve("c")).status_code == 200
        assert await app.used() == 200
        event = await app.here.event(app.wire_id("a"))
        assert (event.requests, event.input_tokens, event.outcome) == (0, 0, Outcome.RELEASED)


async def test_every_verb_may_be_sent_again(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A retry after a lost answer holds nothing twice and charges nothing twice: it answers as before."""
    async with app_beside(tmp_path, valkey) as app:
        first = await app.reserve("r1")
        again = await app.reserve("r1", 500, 500)
        assert again.json() | {"lease_ends_at": ""} == first.json() | {"lease_ends_at": ""}
        assert (await app.used(), await app.running()) == (100, 1)

        settled = await app.settle("r1", 9, 21)
        repeated = await asyncio.gather(*[app.settle("r1", 700, 70) for _ in range(8)])

        assert [answer.json() for answer in repeated] == [settled.json()] * 8
        assert (await app.reserve("r1")).json()["error"]["code"] == "request_ended"
        assert (await app.post("release", request_id="r1")).status_code == 409
        assert (await app.used(), await app.running()) == (30, 0)


async def test_usage_is_charged_without_a_reservation(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B1: what has happened is charged once, past a limit too, however often it is told; refusing it would lose it."""
    async with app_beside(tmp_path, valkey) as app:
        usage = {"input_tokens": 900, "output_tokens": 300, "cached_tokens": 100, "reasoning_tokens": 50}
        answers = await asyncio.gather(*[app.post("usage", request_id="u1", usage=usage) for _ in range(20)])

        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json()["tokens"] for answer in answers} == {1200}
        await until(lambda: _at_rest(app))
        assert (await app.used(), await app.used("requests/day")) == (1200, 1)
        event = await app.here.event(app.wire_id("u1"))
        assert (event.cached_tokens, event.reasoning_tokens, event.counted_by) == (100, 50, CountedBy.APP)
        assert (await app.reserve("r1")).status_code == 429
        unnamed = await app.post("usage", usage={"input_tokens": 1})
        assert unnamed.json()["request_id"] != "u1"
        assert await app.used() == 1201


async def _at_rest(app: App) -> bool:
    return await app.running() == 0


async def test_a_failed_upstream_gives_the_request_back(tmp_path: Path, valkey: ValkeyServer) -> None:
    """As in the proxy: an upstream's failure counts no request, and what it used is charged."""
    async with app_beside(tmp_path, valkey) as app:
        await app.reserve("r1")
        assert (await app.settle("r1", 7, 0, outcome="upstream_error")).status_code == 200
        assert (await app.used("requests/day"), await app.used()) == (0, 7)


async def test_more_can_be_held_while_it_runs(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A request that outruns its estimate asks for more under the same limits, and is refused like a new one."""
    async with app_beside(tmp_path, valkey) as app:
        await app.reserve("r1", 10, 90)
        body = {"request_id": "r1", "estimate": {"input_tokens": 10, "output_tokens": 490}}
        for _ in range(2):
            extended = await app.post("extend", **body)
            assert (extended.status_code, extended.json()["held"]["tokens/day"]) == (200, 500)
            assert await app.used() == 500

        body["estimate"] = {"input_tokens": 10, "output_tokens": 991}
        refused = await app.post("extend", **body)

        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert await app.used() == 500
        assert (await app.settle("r1", 10, 600)).json()["tokens"] == 610
        assert await app.used() == 610
        assert (await app.post("extend", **body)).status_code == 409


async def test_a_lease_that_runs_out_is_charged_and_then_corrected(tmp_path: Path, valkey: ValkeyServer) -> None:
    """An app that dies frees its slot and pays its input; one that was only late pays, in the end, what it used."""
    async with app_beside(tmp_path, valkey) as app:
        await app.reserve("r1", 10, 90, lease_s=1)
        await until(lambda: _at_rest(app))
        assert await app.used() == 10
        assert (await app.reserve("r1")).status_code == 409
        assert (await app.post("extend", request_id="r1", estimate={"input_tokens": 1})).status_code == 409

        first = await app.settle("r1", 12, 30)
        again = await app.settle("r1", 12, 30)

        assert (first.status_code, first.json()["tokens"]) == (200, 42)
        assert again.json() == first.json()
        assert (await app.used(), await app.used("requests/day")) == (42, 1)
        late = await app.here.event(app.wire_id("r1") + "/late")
        assert late.input_tokens + late.output_tokens == 32


async def test_a_sign_of_life_keeps_a_hold(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long request renews its lease and tells what it used so far; should it die then, that is what it pays."""
    clock = shifted_clock(monkeypatch)
    clock.put(window_s=86_400, left_s=43_200)
    async with app_beside(tmp_path, valkey) as app:
        await app.reserve("r1", 10, 90, lease_s=60)
        so_far = {"input_tokens": 10, "output_tokens": 33}
        renewed = await app.post("lease", request_id="r1", lease_s=180, usage=so_far)
        assert (renewed.status_code, renewed.json()["state"]) == (200, "held")
        clock.move(120)
        assert await app.here.gateway._limiter.reap() == 0
        assert await app.used() == 100

        clock.move(120)
        await until(lambda: _at_rest(app))

        assert await app.used() == 43
        assert (await app.post("lease", request_id="r1")).status_code == 409


async def test_an_account_never_reaches_anothers_request(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Ids belong to their account: the same one is two requests, and a foreign one is unknown, whoever guesses it."""
    async with app_beside(tmp_path, valkey) as app:
        other = App(app.here, await app.here.account("other"), "other")
        await app.reserve("r1")
        foreign: dict[str, dict[str, Any]] = {"settle": {"usage": {}}, "extend": {"estimate": {"input_tokens": 1}}}

        for verb in ("settle", "release", "extend", "lease"):
            body = foreign.get(verb, {})
            answer = await other.post(verb, request_id="r1", **body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_request"), verb
            guessed = await other.post(verb, request_id=app.wire_id("r1"), **body)
            assert guessed.status_code == 404, verb
        assert (await other.reserve("r1")).status_code == 200
        await other.settle("r1", 1, 1)
        assert (await app.used(), await app.running()) == (100, 1)


BAD = (
    ("reserve", b"", "truncated"),
    ("reserve", b"[]", "object"),
    ("reserve", b'{"estimate": {}}', "needs `input_tokens` or `prompt_bytes`"),
    ("reserve", b'{"estimate": {"input_tokens": 1, "prompt_bytes": 1}}', "not both"),
    ("reserve", b'{"estimate": {"input_tokens": -1}}', "`estimate.input_tokens`"),
    ("reserve", b'{"estimate": {"input_tokens": 1.5}}', "`estimate.input_tokens`"),
    ("reserve", b'{"estimate": {"input_tokens": 1}, "lease_s": 0}', "`lease_s`"),
    ("reserve", b'{"estimate": {"input_tokens": 1}, "request_id": "a/late"}', "`request_id`"),
    ("reserve", b'{"estimate": {"input_tokens": 1}, "request_id": "a\\n"}', "`request_id`"),
    ("reserve", b'{"estimate": {"input_tokens": 1}, "max_tokens": 3}', "unknown field `max_tokens`"),
    ("settle", b'{"usage": {}}', "`request_id`"),
    ("settle", b'{"request_id": "r"}', "`usage`"),
    ("settle", b'{"request_id": "r", "usage": {"cached_tokens": 1}}', "part of `input_tokens`"),
    ("settle", b'{"request_id": "r", "usage": {"reasoning_tokens": 1}}', "part of `output_tokens`"),
    ("settle", b'{"request_id": "r", "usage": {}, "outcome": "reaped"}', "`outcome` is one of"),
    ("usage", b'{"usage": {"input_tokens": 1099511627777}}', "`usage.input_tokens`"),
    ("extend", b'{"estimate": {"input_tokens": 1}}', "`request_id`"),
    ("lease", b'{"request_id": "r", "lease_s": 3601}', "`lease_s`"),
    ("release", b'{"request_id": ""}', "`request_id`"),
)
"""A verb, a body that it does not take, and what the answer has to name."""


async def test_a_bad_body_is_told_where(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Whoever writes a client sees which field is wrong, and that nothing happened."""
    async with app_beside(tmp_path, valkey) as app:
        for verb, body, says in BAD:
            answer = await app.here.client.post(f"/_tollway/{verb}", content=body, headers=app.headers)

            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_body"), body
            assert says in answer.json()["error"]["message"]


async def test_only_a_good_key_meters(tmp_path: Path, valkey: ValkeyServer) -> None:
    """No key, a wrong one and too large a body are what they are in the proxy."""
    async with app_beside(tmp_path, valkey) as app:
        client = app.here.client
        assert (await client.post("/_tollway/reserve", content=b"{}")).status_code == 401
        assert (await App(app.here, app.key[:-1] + "x").reserve()).status_code == 401
        assert (await client.post("/_tollway/usage", content=b" " * 70_000, headers=app.headers)).status_code == 413
        assert (await client.get("/_tollway/reserve", headers=app.headers)).status_code == 404


async def test_a_keys_scope_holds_here_too(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F4: a key that is for one route or model can't buy others by reporting them."""
    async with app_beside(tmp_path, valkey) as app:
        for terms, says in ((KeyTerms(("/v1/*",)), "route_not_in_key"), (KeyTerms((), ("o3",)), "model_not_in_key")):
            key_id, key, digest = new_key(app.here.deployment.digest_key)
            await app.here.ledger.create_key(ApiKey(key_id, "acme", digest, "", now_ms(), terms=terms))
            narrow = App(app.here, key)
            for answer in (await narrow.reserve(model="gpt"), await narrow.post("usage", usage={}, model="gpt")):
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, says)
        assert (await narrow.reserve("r1", model="o3")).status_code == 200
        assert (await narrow.settle("r1")).status_code == 200


async def test_any_gateway_settles_what_another_reserved(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Behind a load balancer the calls of one request meet different gateways, which know nothing but Redis."""
    async with app_beside(tmp_path, valkey) as one, stand(tmp_path, valkey, NOBODY, tiers=TIERS) as second:
        other = App(second, one.key)
        await one.reserve("r1", 10, 90)
        assert (await other.reserve("r1")).json()["held"]["tokens/day"] == 100
        extended = await other.post("extend", request_id="r1", estimate={"input_tokens": 10, "output_tokens": 190})
        assert extended.json()["held"]["tokens/day"] == 200

        answers = await asyncio.gather(*[app.settle("r1", 5, 6) for app in (one, other) * 5])

        assert {(answer.status_code, answer.json()["tokens"]) for answer in answers} == {(200, 11)}
        assert (await one.used(), await other.used(), await one.running()) == (11, 11, 0)
        assert (await second.event(one.wire_id("r1"))).output_tokens == 6


async def test_silent_redis_is_told_and_nothing_is_taken(tmp_path: Path, valkey: ValkeyServer) -> None:
    """An app whose call could not be checked is told to come again, and not that it may go on or has to pay."""
    async with app_beside(tmp_path, valkey) as app:
        await app.reserve("r1", 10, 90)
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            for answer in (await app.reserve("r2"), await app.settle("r1", 1, 1)):
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "limiter_unavailable")
        finally:
            os.kill(valkey.pid, signal.SIGCONT)

        async def settled() -> bool:
            return bool((await app.settle("r1", 1, 1)).status_code == 200)

        async def at_rest() -> bool:
            return (await app.used(), await app.running()) == (2, 0)

        await until(settled)
        await until(at_rest)
