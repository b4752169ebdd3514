"""WebSockets through the gateway, between a real client and a real server."""

import asyncio
import json
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.protocol import State
from websockets.typing import Origin, Subprotocol

from tests.support.odd_peer import always, odd_peer
from tests.support.openai_wire import http
from tests.support.stand import SETTINGS, stand
from tests.support.until import until
from tests.support.valkey import ValkeyServer
from tests.support.websockets import calling, echo, request_id, upstream

ROUTES = """routes:
  - {{ path: /v1/realtime, upstream: main, dialect: openai-realtime, default_max_tokens: 100 }}
  - {{ path: /v1/chat/completions, upstream: main, dialect: openai }}
  - {{ path: /v1/*, upstream: main, dialect: plain }}
tiers:"""
TIERS = """
  free: {limits: {requests: {hour: 1000}, tokens: {day: 100000}}, concurrency: 2}
  strict: {limits: {tokens: {day: 250}}, on_exhausted: stop}
"""
REALTIME = SETTINGS.partition("routes:")[0] + ROUTES + SETTINGS.partition("tiers:")[2]
HURRIED = REALTIME.replace("max_body_mb: 1", "max_body_mb: 1, websocket_idle_s: 2")


async def test_messages_pass_both_ways_untouched(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1: texts, binaries, fragments, pings and compressed frames of any size are the peers' own affair; one request is
    counted, once, when it is over, and the running slot is held until then.
    """  # noqa: D205
    async with upstream(echo) as (port, seen), stand(tmp_path, valkey, port, settings=REALTIME, tiers=TIERS) as here:
        key = await here.account()
        async with calling(here, key, "/v1/live?a=b") as link:
            for message in ("text", "", b"\x00\xff", "x" * 70_000, bytes(3_000_000)):
                await link.send(message)
                assert await link.recv() == message
            await link.send(["in ", "two"])
            assert await link.recv() == "in two"
            await (await link.ping())
            async with calling(here, key):
                with pytest.raises(InvalidStatus) as refused:
                    await calling(here, key)
                assert refused.value.response.status_code == 429
        event = await here.event(await request_id(link))

        assert (event.requests, event.status, event.outcome, event.endpoint) == (1, 101, "ok", "/v1/*")
        assert event.request_bytes > 3_000 < event.response_bytes
        assert seen.paths[0] == "/v1/live?a=b"
        assert seen.handshakes[0]["authorization"] == "Bearer upstream-secret"
        assert link.response is not None
        assert link.response.headers["x-ratelimit-remaining-requests"] == "999"

        async def at_rest() -> bool:
            usage = await here.client.get("/_tollway/usage", headers={"authorization": f"Bearer {key}"})
            return bool(usage.json()["concurrency"]["running"] == 0)

        await until(at_rest)


@pytest.mark.parametrize("where", ["header", "query", "subprotocol"])
async def test_a_key_is_taken_where_clients_put_it_and_goes_no_further(
    tmp_path: Path, valkey: ValkeyServer, where: str
) -> None:
    """F1: browsers can set no header, so OpenAI's clients offer the key as a subprotocol; wherever it came, the
    upstream sees the gateway's own.
    """  # noqa: D205
    async with (
        upstream(echo, subprotocols=("realtime",)) as (port, seen),
        stand(tmp_path, valkey, port, settings=REALTIME, tiers=TIERS) as here,
    ):
        key = await here.account()
        offered = [Subprotocol("realtime")]
        if where == "subprotocol":
            offered.append(Subprotocol(f"openai-insecure-api-key.{key}"))
        path = f"/v1/live?key={key}&a=b" if where == "query" else "/v1/live?a=b"
        sent = key if where == "header" else ""
        async with calling(here, sent, path, subprotocols=offered, origin=Origin("https://app.example")) as link:
            await link.send("hi")
            assert await link.recv() == "hi"
            assert link.subprotocol == "realtime"

        assert seen.paths == ["/v1/live?a=b"]
        assert not any(key in value for value in seen.handshakes[0].values())
        assert seen.handshakes[0]["sec-websocket-protocol"] == "realtime"
        assert seen.handshakes[0]["origin"] == "https://app.example"


async def test_a_handshake_that_is_refused_says_why(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1: without a key 401, on a route of whole answers 400, by the upstream its own status; none holds anything."""
    reply = http(b"no such room", status="404 Not Found", kind="text/plain")
    async with (
        odd_peer(always(reply)) as peer,
        stand(tmp_path, valkey, peer.port, settings=REALTIME, tiers=TIERS) as here,
    ):
        key = await here.account()
        got = {}
        for name, sent, path in (
            ("no key", "", "/v1/a"),
            ("chat", key, "/v1/chat/completions"),
            ("room", key, "/v1/a"),
        ):
            with pytest.raises(InvalidStatus) as refused:
                await calling(here, sent, path)
            got[name] = (refused.value.response.status_code, refused.value.response.body)

        assert [status for status, _ in got.values()] == [401, 400, 404]
        assert got["room"][1] == b"no such room"
        plain = await here.client.get("/v1/realtime", headers={"authorization": f"Bearer {key}"})
        assert plain.status_code == 400
        assert "WebSockets alone" in plain.json()["error"]["message"]


def done(input_tokens: int, output_tokens: int, cached: int = 0) -> str:
    """A `response.done` as OpenAI sends it."""
    usage = {
        "total_tokens": input_tokens + output_tokens,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "input_token_details": {"text_tokens": input_tokens, "audio_tokens": 0, "cached_tokens": cached},
        "output_token_details": {"text_tokens": output_tokens, "audio_tokens": 0},
    }
    return json.dumps({"type": "response.done", "event_id": "e", "response": {"status": "completed", "usage": usage}})


async def answering(link: ServerConnection) -> None:
    """Each message gets a delta and the end of an answer, in fragments, with a ping in between."""
    async for message in link:
        await link.send(json.dumps({"type": "response.output_text.delta", "delta": "response.done"}))
        text = done(*map(int, str(message).split()))
        await link.send([text[:10], text[10:40], text[40:]])


async def test_each_answer_of_a_session_is_charged_as_the_upstream_counts_it(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    """B3: the ledger equals the sum of what the upstream told, and a running session already stands in the counters."""
    async with (
        upstream(answering) as (port, seen),
        stand(tmp_path, valkey, port, settings=REALTIME, tiers=TIERS) as here,
    ):
        key = await here.account()
        async with calling(here, key, "/v1/realtime?model=gpt-realtime") as link:
            for told in ("100 20 5", "150 30 90", "7 8 0"):
                await link.send(told)
                while json.loads(await link.recv())["type"] != "response.done":
                    pass

            async def counted() -> bool:
                answer = await here.client.get("/_tollway/usage", headers={"authorization": f"Bearer {key}"})
                return bool(answer.json()["limits"][1]["used"] == 257 + 58 + 100)

            await until(counted)
        event = await here.event(await request_id(link))

        assert (event.input_tokens, event.output_tokens, event.cached_tokens) == (257, 58, 95)
        assert (event.model, event.counted_by, event.outcome) == ("gpt-realtime", "upstream", "ok")
        assert "sec-websocket-extensions" not in seen.handshakes[0]


async def test_a_session_ends_where_its_limits_do(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B5: where the tier stops, a session is closed by 1008 once the limits have no room for one more answer, and the
    upstream is closed too; the next handshake is refused.
    """  # noqa: D205
    async with (
        upstream(answering) as (port, seen),
        stand(tmp_path, valkey, port, settings=REALTIME, tiers=TIERS) as here,
    ):
        key = await here.account("acme", "strict")
        async with calling(here, key, "/v1/realtime") as link:
            await link.send("40 60")
            await link.recv()
            await link.send("40 60")
            with pytest.raises(ConnectionClosed):
                async for _ in link:
                    pass
            assert link.close_code == 1008
            assert "insufficient_quota" in str(link.close_reason)
        event = await here.event(await request_id(link))
        assert (event.input_tokens, event.output_tokens, event.outcome) == (80, 120, "stopped")
        with pytest.raises(InvalidStatus):
            await calling(here, key, "/v1/realtime")

        async def closed() -> bool:
            return seen.closes == [1008]

        await until(closed)


async def test_an_idle_websocket_is_closed_and_a_busy_one_is_not(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1: what is forgotten open holds a slot for nobody; both ends learn why."""
    async with (
        upstream(echo) as (port, seen),
        stand(tmp_path, valkey, port, settings=HURRIED, tiers=TIERS) as here,
    ):
        key = await here.account()
        async with calling(here, key) as busy, calling(here, key) as idle, asyncio.timeout(30):
            while idle.state is not State.CLOSED:
                await asyncio.sleep(0.1)
                await busy.send("hi")
                await busy.recv()

            assert (idle.close_code, idle.close_reason) == (1001, "idle for too long")
            assert busy.close_code is None

        async def closed() -> bool:
            return sorted(code or 0 for code in seen.closes) == [1000, 1001]

        await until(closed)


async def test_a_stop_tells_every_websocket(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1, F9: clients of a gateway that stops are told 1001 between two frames, and connect to another; what they used
    is settled.
    """  # noqa: D205
    async with upstream(echo) as (port, _):
        async with stand(tmp_path, valkey, port, settings=REALTIME, tiers=TIERS) as here:
            link = await calling(here, await here.account())
            await link.send("hi")
            await link.recv()
        await link.wait_closed()

        assert link.close_code == 1001


@pytest.mark.parametrize("who", ["client", "upstream"])
async def test_an_end_that_vanishes_takes_the_other_with_it(tmp_path: Path, valkey: ValkeyServer, who: str) -> None:
    """F1: no half of a tunnel is left, whichever side died, and the slot is free again."""

    async def vanish(link: ServerConnection) -> None:
        async for _ in link:
            link.transport.abort()

    async with (
        upstream(echo if who == "client" else vanish) as (port, seen),
        stand(tmp_path, valkey, port, settings=REALTIME, tiers=TIERS) as here,
    ):
        link = await calling(here, await here.account())
        if who == "client":
            await link.send("hi")
            await link.recv()
            link.transport.abort()
        else:
            await link.send("die")
        await link.wait_closed()
        event = await here.event(await request_id(link))

        async def closed() -> bool:
            return len(seen.closes) == 1

        await until(closed)
        assert (event.requests, event.input_tokens + event.output_tokens) == (1, 0)


async def test_the_slower_end_holds_back_the_faster(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1: a client that reads nothing makes the gateway hold some hundred KB of its upstream's flood, not all of it."""
    sent = 0

    async def flood(link: ServerConnection) -> None:
        nonlocal sent
        while True:
            await link.send(bytes(100_000))
            sent += 100_000

    async with upstream(flood) as (port, _), stand(tmp_path, valkey, port, settings=REALTIME, tiers=TIERS) as here:
        link = await calling(here, await here.account(), max_queue=1, compression=None)

        async def stuck() -> bool:
            before = sent
            await asyncio.sleep(0.2)
            return 0 < sent == before

        await until(stuck)
        assert sent < 40_000_000
        stuck_at = sent
        for _ in range(stuck_at // 100_000 + 20):
            assert len(await link.recv()) == 100_000
        link.transport.abort()
