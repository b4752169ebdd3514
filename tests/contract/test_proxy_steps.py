"""A stream that holds several answers is charged for all of them (row B2), however its end is told."""

import asyncio
from pathlib import Path

import pytest

from gateway.domain.usage import LATE
from tests.support.odd_peer import Visit, odd_peer
from tests.support.openai_endpoints import shipped_settings
from tests.support.openai_wire import STREAM_HEAD, framed
from tests.support.own_usage import limit_of, own_usage
from tests.support.stand import stand
from tests.support.typed_recordings import NAMES, events, told
from tests.support.valkey import ValkeyServer

STEPS = "openai-reasoning-encrypted-content.1"


@pytest.mark.parametrize("name", NAMES)
async def test_recorded_streams_are_charged_exactly(tmp_path: Path, valkey: ValkeyServer, name: str) -> None:
    """B2, B9: from the upstream's socket to the account's own page not one token is lost, or counted twice."""
    usage = told(name, streamed=True)

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(STREAM_HEAD, *(framed(event) for event in events(name)), framed(b""))

    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port, settings=shipped_settings()) as here:
        key = await here.account()
        auth = {"authorization": f"Bearer {key}"}
        answer = await here.client.post("/v1/responses", json={"model": "m", "stream": True}, headers=auth)

        assert answer.content == b"".join(events(name))
        charged = (await limit_of(here, key, "tokens/month"))["used"]
        if usage is None:
            event = await here.event(answer.headers["x-request-id"])
            assert (event.output_tokens, event.outcome) == (0, "upstream_error")
        else:
            assert charged == usage.tokens


async def test_a_step_that_comes_after_an_end_is_charged(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B2: the first answer is settled as soon as it ends, since a caller may leave then; what follows in the same
    stream becomes an event of its own, so that counters and ledger hold the sum.
    """  # noqa: D205
    release = asyncio.Event()
    steps = events(STEPS)
    first = next(number for number, event in enumerate(steps, 1) if b'"type":"response.completed"' in event)
    usage = told(STEPS, streamed=True)
    assert usage is not None

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(STREAM_HEAD, framed(b"".join(steps[:first])))
        await release.wait()
        await visit.say(*(framed(event) for event in steps[first:]), framed(b""))

    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port, settings=shipped_settings()) as here:
        key = await here.account()
        body, auth = {"model": "m", "stream": True}, {"authorization": f"Bearer {key}"}
        async with here.client.stream("POST", "/v1/responses", json=body, headers=auth) as answer:
            request_id = answer.headers["x-request-id"]
            got = b""
            async for data in answer.aiter_raw():
                got += data
                if b"response.completed" in got and not release.is_set():
                    early = await here.event(request_id)
                    release.set()
        rest = await here.event(request_id + LATE)

        assert got == b"".join(steps)
        assert (early.input_tokens + rest.input_tokens, early.output_tokens + rest.output_tokens) == (
            usage.input_tokens,
            usage.output_tokens,
        )
        assert (early.requests, rest.requests) == (1, 0)
        assert (await limit_of(here, key, "tokens/month"))["used"] == usage.tokens
        assert (await own_usage(here, key))["month"]["requests"] == 1
