"""Models and sizes by tier and route, through a whole gateway (row F6)."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.ledger.outbox import apply_outbox
from tests.support.odd_peer import Visit, always, odd_peer
from tests.support.openai_wire import http
from tests.support.pools import FINE, pool
from tests.support.scripted_upstream import SETTINGS
from tests.support.stand import now_ms, stand
from tests.support.truth_balance import at_rest, bearer, events_of
from tests.support.valkey import ValkeyServer

TIERS = """
  free:
    models: {allow: ["gpt-4o-mini*", "m"], aliases: {fast: gpt-4o-mini}}
    max_tokens: 60
    max_context_tokens: 1000
  premium: {models: {allow: ["gpt-4o*"]}, limits: {tokens: {day: 100000}}}
  wide: {max_body_mb: 1}
"""


@pytest.mark.parametrize("listed", [{}, {"model": "gpt-4o"}])
async def test_a_model_of_another_tier_is_403_that_says_which(
    tmp_path: Path, valkey: ValkeyServer, listed: dict[str, str]
) -> None:
    """F6: who is on the wrong tier learns the right one; the upstream hears nothing, nothing is charged."""
    async with pool(tmp_path, valkey, always(FINE), tiers=TIERS) as here:
        status, _, body = await here.ask(model=listed.get("model"))
        assert status == 403
        error = json.loads(body)["error"]
        assert error["code"] == "model_not_allowed"
        if listed:
            assert "Tiers that have it: premium, wide." in error["message"]
        assert here.asked == [0]
        await at_rest(here.here, valkey)
        assert await events_of(here.here.ledger) == []


async def test_an_alias_goes_up_as_the_model_and_nothing_else_changes(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F6: the upstream gets the caller's own bytes but for the one name; the event has the model that ran."""
    said = b'[{"role":"user","content":"\\u0041 \\"model\\": 1"}]'
    sent = b'{ "messages": ' + said + b',\n "model" : "fast", "x":1.0, "max_tokens":5}'
    async with pool(tmp_path, valkey, always(FINE), tiers=TIERS) as here:
        answer = await here.here.client.post("/v1/chat/completions", content=sent, headers=bearer(here.key))
        assert answer.status_code == 200
        assert here.seen[0][0].body == sent.replace(b'"fast"', b'"gpt-4o-mini"')
        assert (await here.here.event(answer.headers["x-request-id"])).model == "gpt-4o-mini"


@pytest.mark.parametrize(
    ("fields", "code", "told"),
    [
        ({"max_tokens": 61}, "max_tokens_too_large", "at most 60"),
        ({"max_tokens": 31, "n": 2}, "max_tokens_too_large", "at most 60"),
        ({"max_tokens": None}, "max_tokens_too_large", "at most 60"),
        ({"messages": [{"role": "user", "content": "word " * 4000}]}, "context_too_large", "takes 1000"),
    ],
)
async def test_a_request_above_a_cap_is_400_that_names_it(
    tmp_path: Path, valkey: ValkeyServer, fields: dict[str, Any], code: str, told: str
) -> None:
    """F6: the cap can't be dodged by many choices, or by leaving the maximum out."""
    async with pool(tmp_path, valkey, always(FINE), tiers=TIERS) as here:
        status, _, body = await here.ask(**fields)
        error = json.loads(body)["error"]
        assert (status, error["code"]) == (400, code)
        assert told in error["message"]
        assert here.asked == [0]
        assert (await here.ask())[0] == 200


async def test_a_change_of_tier_counts_from_the_next_request(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A6, F6: who has just paid for a model is not told that they lack it."""
    async with pool(tmp_path, valkey, always(FINE), tiers=TIERS) as here:
        assert (await here.ask(model="gpt-4o"))[0] == 403
        await here.here.ledger.set_tier("acme", "premium", now_ms())

        await apply_outbox(here.here.ledger, here.here.gateway._limiter.bump)
        assert (await here.ask(model="gpt-4o"))[0] == 200
        assert (await here.ask())[0] == 403


async def test_a_body_above_the_tiers_cap_is_413(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F6: announced or not, on a plain route too."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100_000

    async with pool(tmp_path, valkey, always(FINE), tiers=TIERS) as here:
        key = bearer(await here.here.account("wide", "wide"))
        whole = await here.here.client.post("/v1/files", content=b"x" * 2_000_000, headers=key)
        assert (whole.status_code, whole.json()["error"]["code"]) == (413, "body_too_large")
        unknown = await here.here.client.post("/v1/files", content=pieces(), headers=key)
        assert unknown.status_code == 413


async def test_an_alias_in_googles_path(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F6: where the path names the model, the path is what changes, and the query stays."""
    scripted = SETTINGS.replace(
        "path: /v1beta/models/*, upstream: gemini",
        "path: /v1beta/models/*, models: {{ aliases: {{ fast: gemini-flash }} }}, upstream: gemini",
    )
    lines: list[bytes] = []

    async def script(visit: Visit) -> None:
        while True:
            lines.append((await visit.request()).line)
            await visit.say(http(b'{"candidates": []}'))

    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port, settings=scripted) as here:
        key = await here.account()
        path = "/v1beta/models/fast:generateContent?alt=json"
        answer = await here.client.post(path, json={"contents": []}, headers={"x-goog-api-key": key})
        assert answer.status_code == 200
        assert lines == [b"POST /v1beta/models/gemini-flash:generateContent?alt=json HTTP/1.1"]
        assert (await here.event(answer.headers["x-request-id"])).model == "gemini-flash"
