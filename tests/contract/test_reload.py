"""A worker that is handed other settings while it serves."""

import asyncio
from pathlib import Path

import pytest

from gateway.domain.audit import SYSTEM
from gateway.domain.terms import Terms
from gateway.settings.load import load
from gateway.settings.model import Settings
from tests.support.odd_peer import Peer, Script, Visit, always, odd_peer
from tests.support.openai_wire import DONE, STREAM_HEAD, chunk, completion, framed, http, usage_chunk
from tests.support.stand import CHAT, SETTINGS, TIERS, Stand, now_ms, stand
from tests.support.until import until
from tests.support.valkey import ValkeyServer

PROMPT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}


def asked(directory: Path, valkey: ValkeyServer, peer: Peer, *pairs: tuple[str, str]) -> Settings:
    """The stand's settings, with other text in some places."""
    text = SETTINGS.format(
        data_dir=directory / "data", redis_url=valkey.url, upstream_port=peer.port, tiers=TIERS.strip("\n")
    )
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    file = directory / "changed.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, {})


def held(peer: list[Peer]) -> Script:
    """A script that streams half an answer, and its rest when the test lets it."""

    async def script(visit: Visit) -> None:
        while True:
            await visit.request()
            await visit.say(STREAM_HEAD, framed(chunk("he")))
            await peer[0].release.wait()
            rest = (chunk("llo"), chunk(None, finish="stop"), usage_chunk(5, 2), DONE, b"")
            await visit.say(*map(framed, rest))

    return script


async def call(here: Stand, key: str) -> tuple[int, str]:
    """Status and policy of a request."""
    answer = await here.client.post(CHAT, json=PROMPT, headers={"authorization": f"Bearer {key}"})
    return answer.status_code, answer.headers.get("ratelimit-policy", "")


async def test_a_limit_counts_from_the_next_request(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D1: a raised limit lets in at once who was refused, a lowered one refuses at once, and a limit that is new has
    counted what its window saw before: nobody starts it from nothing.
    """  # noqa: D205
    async with odd_peer(always(http(completion()))) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account(tier="tiny")
        assert [(await call(here, key))[0] for _ in range(3)] == [200, 200, 429]

        here.gateway.reload(asked(tmp_path, valkey, peer, ("requests: {hour: 2}", "requests: {hour: 3}")), 2)
        status, policy = await call(here, key)
        assert (status, '"requests/hour";q=3' in policy) == (200, True)

        here.gateway.reload(asked(tmp_path, valkey, peer, ("requests: {hour: 2}", "requests: {hour: 9, day: 4}")), 3)
        assert [(await call(here, key))[0] for _ in range(2)] == [200, 429]

        here.gateway.reload(asked(tmp_path, valkey, peer, ("requests: {hour: 2}", "requests: {hour: 1}")), 4)
        assert (await call(here, key))[0] == 429


async def test_a_stream_ends_over_the_upstream_it_began_with(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Streams keep what they were admitted under, over a connection that is closed after their end alone; an upstream
    that stays as it was keeps its connections.
    """  # noqa: D205
    peers: list[Peer] = []
    async with (
        odd_peer(held(peers)) as old,
        odd_peer(always(http(completion()))) as new,
        stand(tmp_path, valkey, old.port) as here,
    ):
        peers.append(old)
        key = await here.account()
        fields = {"authorization": f"Bearer {key}"}
        async with here.client.stream("POST", CHAT, json=PROMPT | {"stream": True}, headers=fields) as stream:
            pieces = stream.aiter_bytes()
            first = await anext(pieces)
            here.gateway.reload(asked(tmp_path, valkey, new), 2)
            assert await call(here, key) == (200, stream.headers["ratelimit-policy"])
            here.gateway.reload(asked(tmp_path, valkey, new, ("max_body_mb: 1", "max_body_mb: 1")), 3)
            assert (await call(here, key))[0] == 200
            await asyncio.sleep(0)
            assert (old.gone, new.connections) == (0, 1)
            old.release.set()
            rest = b"".join([piece async for piece in pieces])

        assert b"he" in first
        assert rest.endswith(DONE)
        event = await here.event(stream.headers["x-request-id"])
        assert (event.input_tokens, event.output_tokens, event.outcome) == (5, 2, "ok")

        async def let_go() -> bool:
            return old.gone == 1

        await until(let_go)


async def test_an_account_with_more_than_its_tier_follows_the_tier(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A4: what was worked out for one account alone is worked out anew: no cache keeps the old plan."""
    async with odd_peer(always(http(completion()))) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account(tier="tiny")
        await here.ledger.set_overrides("acme", Terms(limits={"tokens/day": 2000}), SYSTEM, now_ms())
        assert '"tokens/day";q=2000' in (await call(here, key))[1]

        here.gateway.reload(asked(tmp_path, valkey, peer, ("requests: {hour: 2}", "requests: {hour: 30}")), 2)

        policy = (await call(here, key))[1]
        assert ('"requests/hour";q=30' in policy, '"tokens/day";q=2000' in policy) == (True, True)


async def test_an_upstream_that_can_t_be_set_up_changes_nothing(tmp_path: Path, valkey: ValkeyServer) -> None:
    """All or nothing: half of a file is never in force."""
    async with odd_peer(always(http(completion()))) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        before = await call(here, key)
        other = ("upstreams:", f"upstreams:\n  other: {{ url: https://other.test, ca_file: {tmp_path / 'none.pem'} }}")
        with pytest.raises(OSError, match="No such file"):
            here.gateway.reload(asked(tmp_path, valkey, peer, other, ("hour: 1000", "hour: 5")), 2)

        assert await call(here, key) == before
