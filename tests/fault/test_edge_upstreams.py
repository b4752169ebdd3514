"""Upstreams that fail in every way they can: the caller learns the truth, pays for what was seen, and holds nothing."""

import json
from pathlib import Path

import pytest

from gateway.domain.usage import Outcome
from tests.support.odd_peer import Visit, odd_peer
from tests.support.openai_wire import DONE, STREAM_HEAD, chunk, completion, framed, http, usage_chunk
from tests.support.stand import SETTINGS, stand
from tests.support.truth_balance import at_rest, events_of, head_of, post, wire
from tests.support.valkey import ValkeyServer

TIMED = "first_byte_s: 20, between_bytes_s: 20"
NO_HEAD = SETTINGS.replace(TIMED, "first_byte_s: 0.3, between_bytes_s: 20")
NO_MORE = SETTINGS.replace(TIMED, "first_byte_s: 20, between_bytes_s: 0.3")
"""Impatient where the upstream stalls, and nowhere else: a machine that stands still must not look like it."""
BEGUN = STREAM_HEAD + framed(chunk("word ")) + framed(chunk("word "))
OVERLOADED = b'data: {"error": {"message": "overloaded", "type": "server_error"}}\n\n'


@pytest.mark.parametrize(
    ("said", "then", "code"),
    [
        (b"", "close", "upstream_broken"),
        (b"", "stall", "upstream_timeout"),
        (b"\x16\x03\x01 garbage\r\n\r\n", "close", "upstream_broken"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "close", "upstream_broken"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "stall", "upstream_timeout"),
        (http(completion())[:-10], "close", "upstream_broken"),
        (http(completion())[:-10], "stall", "upstream_timeout"),
    ],
)
async def test_no_whole_answer_costs_nothing(
    tmp_path: Path, valkey: ValkeyServer, said: bytes, then: str, code: str
) -> None:
    """502 or 504 that says what was wrong, and the request and its tokens are given back."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(said)
        if then == "stall":
            await visit.client_gone()

    settings = (NO_MORE if b"\r\n\r\n" in said else NO_HEAD) if code == "upstream_timeout" else SETTINGS
    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port, settings=settings) as here:
        key = await here.account()
        async with wire(here) as (reader, writer):
            writer.write(post(key))
            status, fields = await head_of(reader)
            body = json.loads(await reader.readexactly(int(fields["content-length"])))
        assert (status, body["error"]["code"]) == (504 if then == "stall" else 502, code)
        await at_rest(here, valkey)
        (event,) = await events_of(here.ledger)
        assert (event.outcome, event.requests, event.input_tokens, event.output_tokens) == (Outcome.FAULT, 0, 0, 0)


@pytest.mark.parametrize(
    ("said", "then", "outcome", "told"),
    [
        (BEGUN, "close", Outcome.UPSTREAM_CUT, b"upstream_broken"),
        (BEGUN, "reset", Outcome.UPSTREAM_CUT, b"upstream_broken"),
        (BEGUN, "stall", Outcome.UPSTREAM_CUT, b"upstream_timeout"),
        (BEGUN + b"zz\r\ngarbage", "stall", Outcome.UPSTREAM_CUT, b"upstream_broken"),
        (BEGUN + framed(chunk("half")[:30]), "close", Outcome.UPSTREAM_CUT, b"upstream_broken"),
        (BEGUN + framed(OVERLOADED) + framed(b""), "stall", Outcome.UPSTREAM_ERROR, b"overloaded"),
        (BEGUN + framed(OVERLOADED) + framed(DONE) + framed(b""), "stall", Outcome.UPSTREAM_ERROR, b"overloaded"),
        (BEGUN + framed(OVERLOADED), "close", Outcome.UPSTREAM_CUT, b"upstream_broken"),
    ],
)
async def test_a_stream_that_breaks_is_charged_for_what_was_seen(
    tmp_path: Path, valkey: ValkeyServer, said: bytes, then: str, outcome: Outcome, told: bytes
) -> None:
    """The caller is told inside the stream, in whole events, and the two words that it saw are counted, never less."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(said)
        if then == "stall":
            await visit.client_gone()
        elif then == "reset":
            visit.reset()

    settings = NO_MORE if told == b"upstream_timeout" else SETTINGS
    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port, settings=settings) as here:
        key = await here.account()
        async with wire(here) as (reader, writer):
            writer.write(post(key, stream=True, stream_options={"include_usage": True}))
            assert (await head_of(reader))[0] == 200
            stream = await reader.readuntil(b"\r\n0\r\n\r\n")
        assert told in stream
        await at_rest(here, valkey)
        (event,) = await events_of(here.ledger)
        assert (event.outcome, event.requests) == (outcome, 1)
        assert event.output_tokens >= 2
        assert event.input_tokens > 0


async def test_a_stream_cut_after_its_usage_is_charged_by_it(tmp_path: Path, valkey: ValkeyServer) -> None:
    """What the upstream did report is what counts, however the stream ends after that."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(BEGUN, framed(chunk(None, finish="stop")), framed(usage_chunk(7, 2)))

    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        async with wire(here) as (reader, writer):
            writer.write(post(key, stream=True))
            await reader.readuntil(b"\r\n0\r\n\r\n")
        await at_rest(here, valkey)
        (event,) = await events_of(here.ledger)
        assert (event.counted_by, event.input_tokens, event.output_tokens) == ("upstream", 7, 2)
