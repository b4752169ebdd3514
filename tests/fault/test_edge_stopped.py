"""Streams that outrun what was held for them (row B5): held on slice by slice, and where the limits have no room for
another, ended validly or owed, as the tier says.
"""  # noqa: D205

import asyncio
import json
from pathlib import Path

import pytest

from gateway.domain.usage import Outcome
from gateway.metering.ratio import FIRST_RATIO
from tests.support.odd_peer import Script, Visit, odd_peer
from tests.support.openai_wire import STREAM_HEAD, chunk, framed
from tests.support.stand import SETTINGS, Stand, stand
from tests.support.truth_balance import at_rest, events_of, head_of, post, wire
from tests.support.until import until
from tests.support.valkey import ValkeyServer

SLICE = 64
STREAMS = 50
LIMIT = 6000
SLICED = SETTINGS.replace("flush_interval_ms: 20", f"flush_interval_ms: 20, extend_slice_tokens: {SLICE}")


def tier(on_exhausted: str, maximum: int = LIMIT) -> str:
    """One tier with a limit of tokens a day."""
    return f"  free: {{limits: {{tokens: {{day: {maximum}}}}}, on_exhausted: {on_exhausted}}}"


def endless(burst: int, text: str = "word ") -> Script:
    """An upstream that heeds no maximum: chunks without end, so many in one piece."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(STREAM_HEAD)
        while True:
            await visit.say(framed(chunk(text) * burst))
            await asyncio.sleep(0)

    return script


async def read_to_its_end(here: Stand, key: str, max_tokens: int) -> bytes:
    """One stream, as it came over the wire, its chunks joined."""
    async with wire(here) as (reader, writer):
        writer.write(post(key, stream=True, max_tokens=max_tokens))
        assert (await head_of(reader))[0] == 200
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        return body


def finishes(body: bytes) -> list[str | None]:
    """The finish reason of each chunk, after the terminator was seen to be the last event."""
    events = [event for event in body.split(b"\n\n") if event.startswith(b"data: ")]
    assert events.pop() == b"data: [DONE]"
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
    return [choice["finish_reason"] for one in chunks for choice in one["choices"]]


async def used(here: Stand) -> int:
    """The tokens counted and held now."""
    state = await here.gateway._limiter.peek("acme")
    return 0 if state is None else state[2]["tokens/day"][1]


@pytest.mark.parametrize("burst", [1, 400], ids=["a chunk a read", "bursts"])
async def test_no_window_is_passed_by_more_than_a_slice_a_stream(
    tmp_path: Path, valkey: ValkeyServer, burst: int
) -> None:
    """B1, B5: an upstream that ignores `max_tokens`, fifty streams at once: the plan's limit is what the account gets.
    Whoever sells 6,000 tokens a day isn't billed for a million by a provider that never stops.
    """  # noqa: D205
    most = 0
    async with (
        odd_peer(endless(burst)) as peer,
        stand(tmp_path, valkey, peer.port, tiers=tier("stop"), settings=SLICED) as here,
    ):
        key = await here.account()
        streams = [asyncio.create_task(read_to_its_end(here, key, 20)) for _ in range(STREAMS)]

        async def ended() -> bool:
            nonlocal most
            most = max(most, await used(here))
            return all(stream.done() for stream in streams)

        await until(ended, 40)
        bodies = [stream.result() for stream in streams]
        await at_rest(here, valkey)
        events = await events_of(here.ledger)

        assert most <= LIMIT + STREAMS * SLICE
        assert LIMIT - STREAMS * SLICE <= await used(here) <= LIMIT + STREAMS * SLICE
        assert {event.outcome for event in events} == {Outcome.STOPPED}
        assert sum(event.input_tokens + event.output_tokens for event in events) == await used(here)
    for body in bodies:
        assert [finish for finish in finishes(body) if finish] == ["length"]
    sent = sorted(-int(-body.count(b'"word "') * 5 * FIRST_RATIO // 1) for body in bodies)
    assert sorted(event.output_tokens for event in events) == sent
