"""Foreign bytes against the lean transport: however they are cut, the same answer; however they are bent, an end."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.domain.faults import UPSTREAM_BROKEN, UPSTREAM_TIMEOUT, Fault, FaultKind
from gateway.upstream.transport import Timeouts
from tests.support.odd_peer import Peer, Script, Visit, odd_peer
from tests.support.transports import PATIENT, body_of, get, transport_to

VALID = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello": b"hello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nt: 1\r\n\r\n": b"hello",
    b"HTTP/1.1 103 Early\r\nlink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhello": b"hello",
    b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello": b"hello",
    b"HTTP/1.1 204 No Content\r\nserver: x\r\n\r\n": b"",
}
HURRIED = Timeouts(connect_s=5, first_byte_s=0.1, between_bytes_s=0.1, pool_s=5)
valid = st.sampled_from(sorted(VALID))
fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def run(exchange: Coroutine[Any, Any, None]) -> None:
    """Run on the loop that the gateway runs on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(exchange)


@pytest.mark.parametrize("wire", sorted(VALID))
def test_an_answer_cut_in_two_at_any_byte_is_the_same_answer(wire: bytes) -> None:
    """TCP may cut anywhere; a parser with a seam would lose or double tokens once in a million answers."""

    async def exchange() -> None:
        cuts = iter(range(1, len(wire)))

        async def script(visit: Visit) -> None:
            cut = next(cuts)
            await visit.request()
            await apart(visit, [wire[:cut], wire[cut:]])

        async with odd_peer(script) as peer, transport_to("lean", peer.port, timeouts=PATIENT) as transport:
            for _ in range(1, len(wire)):
                assert await body_of(await get(transport)) == VALID[wire]

    run(exchange())


@fuzz
@given(valid, st.lists(st.integers(1, 60), max_size=60))
def test_an_answer_in_any_pieces_is_the_same_answer(wire: bytes, sizes: list[int]) -> None:
    """The same, for many cuts at once."""
    pieces, rest = [], wire
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]

    async def exchange() -> None:
        async with odd_peer(_saying([*pieces, rest])) as peer, transport_to("lean", peer.port) as transport:
            assert await body_of(await get(transport)) == VALID[wire]

    run(exchange())


@fuzz
@given(valid, st.data())
def test_a_bent_answer_ends_in_an_answer_or_a_fault(wire: bytes, data: st.DataObject) -> None:
    """F5: no byte of an upstream may hang a caller or raise anything that the gateway doesn't know."""
    at = data.draw(st.integers(0, len(wire)))
    until = data.draw(st.integers(at, min(len(wire), at + 8)))
    bent = wire[:at] + data.draw(st.binary(max_size=8) | st.sampled_from([b"\r\n", b"\0", b"-1", b": "])) + wire[until:]
    closes = data.draw(st.booleans())

    async def exchange() -> None:
        script = _saying([bent], then_stay=not closes)
        async with odd_peer(script) as peer, asyncio.timeout(20):
            assert await _outcome(peer) in (None, UPSTREAM_BROKEN, UPSTREAM_TIMEOUT)

    run(exchange())


@fuzz
@given(st.binary(max_size=200))
def test_noise_ends_in_an_answer_or_a_fault(noise: bytes) -> None:
    """The same, for bytes that were never HTTP."""

    async def exchange() -> None:
        async with odd_peer(_saying([b"HTTP/1.1 200 OK\r\n" + noise])) as peer, asyncio.timeout(20):
            assert await _outcome(peer) in (None, UPSTREAM_BROKEN, UPSTREAM_TIMEOUT)

    run(exchange())


async def apart(visit: Visit, pieces: list[bytes]) -> None:
    """Say each piece so that it comes in a read of its own, nearly always: both ends share one loop."""
    for piece in pieces:
        await visit.say(piece)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def _saying(pieces: list[bytes], *, then_stay: bool = False) -> Script:
    async def script(visit: Visit) -> None:
        await visit.request()
        await apart(visit, pieces)
        if then_stay:
            await visit.client_gone()

    return script


async def _outcome(peer: Peer) -> FaultKind | None:
    async with transport_to("lean", peer.port, timeouts=HURRIED) as transport:
        try:
            await body_of(await get(transport))
        except Fault as fault:
            return fault.kind
        return None
