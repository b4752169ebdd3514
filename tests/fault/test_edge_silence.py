"""Streams whose upstream says nothing for a while: a sign of life between two events (row F2), and nowhere else."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.support.odd_peer import Visit, odd_peer
from tests.support.openai_wire import DONE, STREAM_HEAD, chunk, framed, usage_chunk
from tests.support.scripted_upstream import SETTINGS as EVERY_DIALECT
from tests.support.scripted_upstream import Streamed, scripted_upstream
from tests.support.stand import SETTINGS, Stand, stand
from tests.support.truth_balance import at_rest, events_of, head_of, post, wire
from tests.support.until import until
from tests.support.valkey import ValkeyServer
from tests.support.wire_recordings import events

COMMENT = b": keep-alive\n\n"
ASKED = {"include_usage": True}


def silence(silence_s: float) -> str:
    """Settings with so long a silence."""
    return SETTINGS.replace("port: 0,", f"port: 0, keep_alive_comment_s: {silence_s},")


async def body_of(reader: asyncio.StreamReader) -> bytes:
    """The rest of a chunked body."""
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    return body


async def test_a_silent_upstream_leaves_signs_of_life(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2: a model that thinks for a minute must not be cut by a proxy on the way. What the upstream said comes as it
    was said, and the comments are not its bytes.
    """  # noqa: D205
    events = chunk("word "), chunk("word ") + usage_chunk(5, 2) + DONE

    async def thinks(visit: Visit) -> None:
        await visit.request()
        await visit.say(STREAM_HEAD, framed(events[0]))
        await peer.release.wait()
        await visit.say(framed(events[1]), framed(b""))

    async with (
        odd_peer(thinks) as peer,
        stand(tmp_path, valkey, peer.port, settings=silence(0.2)) as here,
        wire(here) as (reader, writer),
    ):
        writer.write(post(await here.account(), stream=True, stream_options=ASKED))
        await head_of(reader)
        before = await reader.readuntil(COMMENT)
        before += await reader.readuntil(COMMENT)
        assert before.count(COMMENT) == 2
        assert events[0] in before
        peer.release.set()
        body = await body_of_rest(reader)
        assert body.replace(COMMENT, b"") == events[1]
        await at_rest(here, valkey)
        (settled,) = await events_of(here.ledger)
    assert settled.response_bytes == sum(map(len, events))


async def body_of_rest(reader: asyncio.StreamReader) -> bytes:
    """From inside a chunk's end on."""
    assert await reader.readline() == b"\r\n"
    return await body_of(reader)


async def test_a_gemini_stream_gets_no_comment(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2: Google's SDK for Python takes a comment for JSON and raises: its streams are kept open by an empty line."""
    settings = EVERY_DIALECT.replace("port: 0,", "port: 0, keep_alive_comment_s: 0.1,")
    script = Streamed(events("gemini/google-text"), paced=True)
    async with (
        scripted_upstream(script) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=settings) as here,
    ):
        headers = {"x-goog-api-key": await here.account()}
        path, asked = "/v1beta/models/m:streamGenerateContent?alt=sse", {"contents": [{"parts": [{"text": "hi"}]}]}
        got = b""
        async with here.client.stream("POST", path, json=asked, headers=headers) as answer:
            async for data in answer.aiter_raw():
                got += data
                if got.endswith(b"\r\n" * 4):
                    for _ in script.pieces:
                        upstream.go_on.release()

    first, *rest = script.pieces
    assert got.startswith(first + b"\r\n" * 2)
    assert got.endswith(b"".join(rest))
    assert got[len(first) : -len(b"".join(rest))].strip(b"\r\n") == b""


async def test_no_comment_inside_an_event(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2: half an event came, and then silence: a comment inside would break it for its parser. It is held back until
    it is whole, and the connection is kept open ahead of it.
    """  # noqa: D205
    whole = chunk("word ") + usage_chunk(5, 1) + DONE

    async def halting(visit: Visit) -> None:
        await visit.request()
        await visit.say(STREAM_HEAD, framed(whole[:30]))
        await peer.release.wait()
        await visit.say(framed(whole[30:]), framed(b""))

    async with (
        odd_peer(halting) as peer,
        stand(tmp_path, valkey, peer.port, settings=silence(0.1)) as here,
        wire(here) as (reader, writer),
    ):
        writer.write(post(await here.account(), stream=True, stream_options=ASKED))
        await head_of(reader)
        await until(silences(here, 3))
        peer.release.set()
        body = await body_of(reader)
    assert body.endswith(whole)
    assert set(body.removesuffix(whole).split(b"\n\n")) == {b": keep-alive", b""}


async def test_zero_is_never(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Where the setting is 0, nothing looks and nothing is said."""
    async with (
        odd_peer(_closes) as peer,
        stand(tmp_path, valkey, peer.port, settings=silence(0)) as here,
    ):
        assert here.gateway._keep_alive._timer is None


async def _closes(visit: Visit) -> None:
    await visit.request()


def silences(here: Stand, number: int) -> Callable[[], Awaitable[bool]]:
    """Whether the one request was met in so many silences."""
    met: set[float] = set()

    async def enough() -> bool:
        met.update(exchange.heard_s for exchange in here.gateway._departures.running)
        return len(met) > number

    return enough


async def test_a_slow_reader_holds_back_only_itself(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1, F2: a phone in a tunnel stops reading its stream. Its upstream is held back, so that memory stays bounded; no
    comment is piled on; everyone else streams on; and when it reads again it gets every word.
    """  # noqa: D205
    burst, bursts, most = chunk("word ") * 64, 3000, 16 << 20
    sent = 0

    async def floods(visit: Visit) -> None:
        nonlocal sent
        request = await visit.request()
        flood = b'"max_tokens": 7' in request.body
        await visit.say(STREAM_HEAD)
        for _ in range(bursts if flood else 2):
            await visit.say(framed(burst))
            sent += flood and len(burst)
        await visit.say(framed(usage_chunk(5, 2)), framed(DONE), framed(b""))

    async with odd_peer(floods) as peer, stand(tmp_path, valkey, peer.port, settings=silence(0.1)) as here:
        key = await here.account()
        async with wire(here) as (reader, writer):
            writer.write(post(key, stream=True, max_tokens=7))
            await head_of(reader)
            await until(silences(here, 3))
            for _ in range(10):
                async with wire(here) as (other, asking), asyncio.timeout(20):
                    asking.write(post(key, stream=True))
                    await head_of(other)
                    assert (await body_of(other)).count(b"word ") == 128
            assert sent < most < len(burst) * bursts
            body = await body_of(reader)
        assert body.count(b'"word "') == 64 * bursts
        await at_rest(here, valkey)
