"""What bounds the answers that are read on for clients who left (row F5). What each of them costs: `test_matrix.py`."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.domain.usage import CountedBy, Outcome
from tests.support.odd_peer import Visit, odd_peer
from tests.support.openai_wire import DONE, STREAM_HEAD, chunk, framed, usage_chunk
from tests.support.stand import SETTINGS, Stand, stand
from tests.support.truth_balance import at_rest, events_of, head_of, post, wire
from tests.support.until import until
from tests.support.valkey import ValkeyServer

TIERS = """
  free: {limits: {requests: {hour: 1000}}}
  drain: {limits: {requests: {hour: 1000}, tokens: {day: 100000}}, on_disconnect: drain}
"""
REPORTED = (30, 8)


def noticed(here: Stand) -> Callable[[], Awaitable[bool]]:
    """Whether the gateway knows that the client has left."""

    async def gone() -> bool:
        return all(exchange.gone for exchange in here.gateway._departures.running)

    return gone


@pytest.mark.parametrize("bound", ["max_drains: 1", "drain_s: 0.5"])
async def test_drains_are_bounded(tmp_path: Path, valkey: ValkeyServer, bound: str) -> None:
    """F5: clients who leave an endless upstream can't keep more than so many of its answers running, nor for ever; the
    rest is let go and pays for what was seen.
    """  # noqa: D205
    let_go = asyncio.Semaphore(0)

    async def silent(visit: Visit) -> None:
        await visit.request()
        await visit.say(STREAM_HEAD, framed(chunk("word ")))
        gone = asyncio.ensure_future(visit.client_gone())
        over = asyncio.ensure_future(peer.release.wait())
        await asyncio.wait((gone, over), return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        gone.cancel()
        let_go.release()

    settings = SETTINGS.replace("flush_interval_ms: 20", f"flush_interval_ms: 20, {bound}")
    async with odd_peer(silent) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS, settings=settings) as here:
        key = await here.account("acme", "drain")
        for _ in range(2):
            async with wire(here) as (reader, writer):
                writer.write(post(key, stream=True))
                await head_of(reader)
                await reader.readuntil(b"word ")
            await until(noticed(here))
        async with asyncio.timeout(30):
            await let_go.acquire()
            if bound.startswith("drain_s"):
                await let_go.acquire()
                await at_rest(here, valkey)
        assert len(here.gateway._departures.draining) == (1 if bound.startswith("max") else 0)
        events = await events_of(here.ledger)
        assert {event.outcome for event in events} <= {Outcome.CLIENT_GONE}
        peer.release.set()


async def test_a_graceful_stop_waits_for_drains(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: a deploy in the middle of a drain does not turn the upstream's count into an estimate."""
    go = asyncio.Event()

    async def slow(visit: Visit) -> None:
        await visit.request()
        await visit.say(STREAM_HEAD, framed(chunk("word ")))
        await go.wait()
        await visit.say(framed(chunk("word ") + usage_chunk(*REPORTED) + DONE), framed(b""))

    async with odd_peer(slow) as peer:
        async with stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
            key = await here.account("acme", "drain")
            async with wire(here) as (reader, writer):
                writer.write(post(key, stream=True))
                await head_of(reader)
                await reader.readuntil(b"word ")
            await until(noticed(here))
            # The stop begins below, while the drain still waits for its upstream.
            asyncio.get_running_loop().call_later(0.3, go.set)
        async with stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
            (settled,) = await events_of(here.ledger)
    assert (settled.counted_by, settled.input_tokens, settled.output_tokens) == (CountedBy.UPSTREAM, *REPORTED)
    assert settled.outcome == Outcome.CLIENT_GONE
