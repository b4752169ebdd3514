"""The official OpenAI SDK where limits end a response mid-stream: a short answer, and no error (rows B5, F2)."""

import asyncio
from pathlib import Path

from openai import AsyncOpenAI

from gateway.domain.usage import Outcome
from tests.support.odd_peer import Visit, odd_peer
from tests.support.openai_endpoints import shipped_settings, spoken
from tests.support.openai_wire import STREAM_HEAD, framed
from tests.support.own_usage import limit_of
from tests.support.stand import stand
from tests.support.valkey import ValkeyServer

SETTINGS = shipped_settings().replace("flush_interval_ms: 20", "flush_interval_ms: 20, extend_slice_tokens: 64")
TIERS = "  free: {limits: {tokens: {day: 600}}, on_exhausted: stop}"


async def endless(visit: Visit) -> None:
    """An upstream that heeds no maximum: words without end."""
    await visit.request()
    told = spoken(["word "] * 5)
    await visit.say(STREAM_HEAD, *(framed(event) for event in told[:3]))
    while True:
        await visit.say(framed(b"".join(told[3:8])))
        await asyncio.sleep(0)


async def test_a_response_that_outruns_its_limits_ends_as_incomplete(tmp_path: Path, valkey: ValkeyServer) -> None:
    """The app reads an answer that ran into `max_output_tokens`, with its text and its usage, and is charged what it
    read: the limit holds though the upstream would never have stopped.
    """  # noqa: D205
    async with (
        odd_peer(endless) as peer,
        stand(tmp_path, valkey, peer.port, tiers=TIERS, settings=SETTINGS) as here,
    ):
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key) as sdk, asyncio.timeout(30):
            raw = await sdk.responses.with_raw_response.create(
                model="m", input="hi", stream=True, max_output_tokens=100
            )
            told = [event async for event in raw.parse()]
        event = await here.event(raw.headers["x-request-id"])
        last = told[-1]
        words = "".join(event.delta for event in told if event.type == "response.output_text.delta")

        assert last.type == "response.incomplete"
        assert last.response.incomplete_details is not None
        assert last.response.incomplete_details.reason == "max_output_tokens"
        assert last.response.output_text == words
        assert last.response.usage is not None
        assert last.response.usage.total_tokens == event.input_tokens + event.output_tokens
        assert event.outcome is Outcome.STOPPED
        assert (await limit_of(here, key, "tokens/day"))["used"] <= 600 + 64
