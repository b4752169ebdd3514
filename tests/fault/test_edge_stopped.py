"""Streams that outrun what was held for them (row B5): held on slice by slice, and where the limits have no room for
another, ended validly or owed, as the tier says.
"""  # noqa: D205

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai import AsyncOpenAI

from gateway.domain.decisions import Extension, Extent
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.domain.usage import CountedBy, Outcome
from gateway.metering.ratio import FIRST_RATIO
from gateway.metering.tokenizer import save_vocabulary
from tests.support.encoding import tiny_vocabulary
from tests.support.odd_peer import Script, Visit, odd_peer
from tests.support.openai_wire import DONE, STREAM_HEAD, chunk, event, framed, usage_chunk
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


@pytest.mark.parametrize("asked", [True, False], ids=["usage asked", "not asked"])
async def test_the_official_sdk_takes_a_stopped_stream_for_a_full_one(
    tmp_path: Path, valkey: ValkeyServer, asked: bool
) -> None:
    """B5, F2: the app sees `finish_reason: length`, as of any answer that ran into its maximum, and no exception."""
    extra: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    async with (
        odd_peer(endless(3)) as peer,
        stand(tmp_path, valkey, peer.port, tiers=tier("stop", 500), settings=SLICED) as here,
        AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk,
    ):
        raw = await sdk.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True, max_tokens=20, **extra
        )
        chunks = [one async for one in raw.parse()]
        await at_rest(here, valkey)
        (settled,) = await events_of(here.ledger)
    assert [choice.finish_reason for one in chunks for choice in one.choices if choice.finish_reason] == ["length"]
    told = [one.usage.completion_tokens for one in chunks if one.usage is not None]
    assert told == ([settled.output_tokens] if asked else [])
    assert settled.outcome == Outcome.STOPPED


async def test_finish_owes_what_it_runs_past_the_limit(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B5: the stream ends as its upstream ends it, the bill is the upstream's count, and the debt is seen while the
    stream still runs: whoever asks meanwhile is refused, not admitted on room that is gone.
    """  # noqa: D205

    async def outruns(visit: Visit) -> None:
        await visit.request()
        await visit.say(STREAM_HEAD, *[framed(chunk("word ") * 100)] * 20)
        await peer.release.wait()
        await visit.say(framed(usage_chunk(5, 2000)), framed(DONE), framed(b""))

    async with (
        odd_peer(outruns) as peer,
        stand(tmp_path, valkey, peer.port, tiers=tier("finish", 500), settings=SLICED) as here,
    ):
        key = await here.account()
        stream = asyncio.create_task(read_to_its_end(here, key, 20))

        async def owed() -> bool:
            return await used(here) > 500

        await until(owed)
        async with wire(here) as (reader, writer):
            writer.write(post(key))
            assert (await head_of(reader))[0] == 429
        peer.release.set()
        body = await stream
        await at_rest(here, valkey)
        assert await used(here) == 2005
        (settled,) = await events_of(here.ledger)
    assert body.count(b'"word "') == 2000
    assert (settled.outcome, settled.counted_by, settled.output_tokens) == (Outcome.OK, CountedBy.UPSTREAM, 2000)


async def test_usage_that_is_told_as_it_goes_is_what_counts(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B2, B5: an upstream that reports in every chunk is believed over any count of ours, to the token."""

    async def reports(visit: Visit) -> None:
        await visit.request()
        await visit.say(STREAM_HEAD)
        for told in range(10, 100_000, 10):
            usage = {"prompt_tokens": 5, "completion_tokens": told, "total_tokens": 5 + told}
            choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
            await visit.say(framed(event({"choices": [choice], "usage": usage})))
            await asyncio.sleep(0)

    async with (
        odd_peer(reports) as peer,
        stand(tmp_path, valkey, peer.port, tiers=tier("stop", 500), settings=SLICED) as here,
    ):
        body = await read_to_its_end(here, await here.account(), 20)
        await at_rest(here, valkey)
        (settled,) = await events_of(here.ledger)
        assert 500 - SLICE - 100 <= await used(here) <= 500 + SLICE
    assert finishes(body)[-1] == "length"
    assert settled.counted_by == CountedBy.UPSTREAM
    assert settled.output_tokens == 10 * body.count(b'"content":')


async def test_a_stream_that_cannot_be_extended_for_silence_ends_where_its_hold_does(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B5: Redis answers no extension. A tier that stops keeps its bound even then, and the app still gets an ending."""

    async def silent(self: object, extension: Extension) -> Extent:
        raise Fault(LIMITER_UNAVAILABLE, f"silent: {extension.request_id} of {self}")

    async with (
        odd_peer(endless(1)) as peer,
        stand(tmp_path, valkey, peer.port, tiers=tier("stop"), settings=SLICED) as here,
    ):
        monkeypatch.setattr(type(here.gateway._limiter), "extend", silent)
        body = await read_to_its_end(here, await here.account(), 100)
        await at_rest(here, valkey)
        (settled,) = await events_of(here.ledger)
    assert [finish for finish in finishes(body) if finish] == ["length"]
    assert settled.outcome == Outcome.STOPPED
    assert 100 <= settled.output_tokens <= 100 + SLICE


async def test_a_stream_within_its_limits_is_never_ended(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B5: it outruns its estimate twenty times over and the plan has room: it is held on, and comes whole."""

    async def outruns(visit: Visit) -> None:
        await visit.request()
        await visit.say(STREAM_HEAD, *[framed(chunk("word ") * 4)] * 200)
        await visit.say(framed(usage_chunk(5, 800)), framed(DONE), framed(b""))

    async with (
        odd_peer(outruns) as peer,
        stand(tmp_path, valkey, peer.port, tiers=tier("stop", 100_000), settings=SLICED) as here,
    ):
        body = await read_to_its_end(here, await here.account(), 40)
        await at_rest(here, valkey)
        assert await used(here) == 805
    assert body.count(b'"word "') == 800


def install_vocabulary(directory: Path) -> None:
    """A tiny vocabulary under the name that the settings ask for: ` token` is one token."""
    vocabulary = msgspec.structs.replace(tiny_vocabulary(), name="o200k_base")
    save_vocabulary(vocabulary, directory / "data" / "tokenizer")


async def test_a_stream_that_keeps_to_its_maximum_is_not_ended_for_a_rough_count(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    """B5: the window is full, nothing more can be held, and the ratio takes the text for three times what it is. The
    tokenizer is asked before a stream is ended: what was admitted and held is delivered whole.
    """  # noqa: D205

    async def keeps(visit: Visit) -> None:
        await visit.request()
        await visit.say(STREAM_HEAD, *[framed(chunk(" token"))] * 100)
        await visit.say(framed(usage_chunk(5, 100)), framed(DONE), framed(b""))

    install_vocabulary(tmp_path)
    async with (
        odd_peer(keeps) as peer,
        stand(tmp_path, valkey, peer.port, tiers=tier("stop", 160), settings=SLICED) as here,
    ):
        body = await read_to_its_end(here, await here.account(), 100)
        await at_rest(here, valkey)
        (settled,) = await events_of(here.ledger)
    assert body.count(b'" token"') == 100
    assert (settled.outcome, settled.output_tokens) == (Outcome.OK, 100)


async def test_a_whole_answer_is_not_ended_for_what_its_bill_says(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B5: a model that reasons unseen tells of it with its last words, far above what was held and past the limit. The
    answer was finished: it is owed, and the app sees the finish reason that the model gave.
    """  # noqa: D205

    async def reasons(visit: Visit) -> None:
        await visit.request()
        said = [chunk("word "), chunk(None, finish="stop"), usage_chunk(5, 900), DONE]
        await visit.say(STREAM_HEAD, *map(framed, said), framed(b""))

    async with (
        odd_peer(reasons) as peer,
        stand(tmp_path, valkey, peer.port, tiers=tier("stop", 160), settings=SLICED) as here,
    ):
        body = await read_to_its_end(here, await here.account(), 20)
        await at_rest(here, valkey)
        (settled,) = await events_of(here.ledger)
        assert await used(here) == 905
    assert [finish for finish in finishes(body) if finish] == ["stop"]
    assert (settled.outcome, settled.output_tokens) == (Outcome.OK, 900)


async def test_a_stopped_stream_is_charged_to_the_token(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B5: where the vocabulary is installed, what was sent is counted, not estimated."""
    install_vocabulary(tmp_path)
    async with (
        odd_peer(endless(50, " token")) as peer,
        stand(tmp_path, valkey, peer.port, tiers=tier("stop", 1000), settings=SLICED) as here,
    ):
        body = await read_to_its_end(here, await here.account(), 100)
        await at_rest(here, valkey)
        (settled,) = await events_of(here.ledger)
        assert 1000 - SLICE <= await used(here) <= 1000 + SLICE
    assert (settled.outcome, settled.counted_by) == (Outcome.STOPPED, CountedBy.TOKENIZER)
    assert settled.output_tokens == body.count(b'" token"')
