"""The transport port, on both implementations: which connections are reused, how many, and what is retried."""

import asyncio
import functools
from collections.abc import AsyncIterator

import pytest

from gateway.domain.faults import UPSTREAM_BROKEN, UPSTREAM_BUSY, UPSTREAM_REFUSED, Fault
from gateway.upstream.transport import Timeouts, Transport
from tests.support.odd_peer import Peer, Visit, always, answers, both_at_once, odd_peer
from tests.support.transports import KINDS, NOBODY, Kind, body_of, get, transport_to
from tests.support.until import until

pytestmark = pytest.mark.parametrize("kind", KINDS)

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def test_requests_one_after_another_share_a_connection(kind: Kind) -> None:
    """A TLS handshake per request would cost more than the request."""
    async with odd_peer(always(OK)) as peer, transport_to(kind, peer.port) as transport:
        for _ in range(5):
            assert await body_of(await get(transport)) == b"ok"

    assert peer.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 2",
        OK + b"junk",
    ],
)
async def test_a_connection_that_may_not_be_reused_is_not(kind: Kind, reply: bytes) -> None:
    """Bytes left over from one answer must never be read as the answer to another account's request."""
    async with odd_peer(always(reply)) as peer, transport_to(kind, peer.port) as transport:
        for _ in range(3):
            assert await body_of(await get(transport)) == b"ok"

    assert peer.connections == 3


async def test_a_connection_the_peer_closed_while_idle_is_not_used(kind: Kind) -> None:
    """Peers close idle connections all the time; the caller must not see that as a 502."""
    async with odd_peer(answers(OK)) as peer, transport_to(kind, peer.port) as transport:
        for visits in range(1, 4):
            assert await body_of(await transport.send(b"POST", b"/", [], b"x")) == b"ok"
            await until(functools.partial(_has_gone, peer, visits))

    assert peer.connections == 3


async def test_a_reused_connection_that_dies_unanswered_is_retried_once(kind: Kind) -> None:
    """The peer's idle time-out can cross the request on the wire; the caller must not see that as a 502."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(OK)
        await visit.request()

    async with odd_peer(script) as peer, transport_to(kind, peer.port) as transport:
        for _ in range(3):
            assert await body_of(await transport.send(b"POST", b"/", [], b"x")) == b"ok"

    assert peer.connections == 3


async def test_a_fresh_connection_that_dies_unanswered_is_not_retried(kind: Kind) -> None:
    """An upstream that crashes on a request must not be sent it again and again, and charge for each."""
    async with odd_peer(answers_nothing) as peer, transport_to(kind, peer.port) as transport:
        with pytest.raises(Fault) as caught:
            await transport.send(b"POST", b"/", [], b"x")

    assert caught.value.kind is UPSTREAM_BROKEN
    assert peer.connections == 1


async def test_a_streamed_body_is_never_sent_twice(kind: Kind) -> None:
    """It is gone once it was read: a second sending would be cut short without anybody knowing."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(OK)
        await visit.request()

    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    async with odd_peer(script) as peer, transport_to(kind, peer.port) as transport:
        await body_of(await get(transport))
        with pytest.raises(Fault) as caught:
            await transport.send(b"POST", b"/", [], body())

    assert caught.value.kind is UPSTREAM_BROKEN


async def test_connections_stay_within_the_cap_and_all_requests_are_served(kind: Kind) -> None:
    """A burst must queue at the gateway rather than open a thousand connections to the provider."""
    async with odd_peer(always(OK)) as peer, transport_to(kind, peer.port, max_connections=3) as transport:
        bodies = await asyncio.gather(*(_fetch(transport) for _ in range(60)))

    assert bodies == [b"ok"] * 60
    assert peer.connections <= 3


async def test_who_waits_too_long_for_a_connection_is_told_busy(kind: Kind) -> None:
    """A caller must get a clear 503 in time rather than hang behind somebody's long stream."""
    short = Timeouts(pool_s=0.15)
    async with odd_peer(slow) as peer, transport_to(kind, peer.port, timeouts=short, max_connections=1) as transport:
        first = await get(transport)
        with pytest.raises(Fault) as caught:
            await get(transport)
        assert caught.value.kind is UPSTREAM_BUSY
        first.close()


async def test_a_cancelled_wait_in_line_takes_no_connection_with_it(kind: Kind) -> None:
    """Callers who give up while queued must not shrink the pool until nothing is served."""
    async with odd_peer(slow) as peer, transport_to(kind, peer.port, max_connections=1) as transport:
        first = await get(transport)
        waiting = [asyncio.create_task(get(transport)) for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting[:2]:
            task.cancel()
        first.close()
        answer = await waiting[2]
        answer.close()

        assert answer.status == 200


async def test_a_place_granted_to_someone_cancelled_goes_to_the_next(kind: Kind) -> None:
    """The race that leaks: a caller leaves in the very turn in which the place becomes free."""
    async with odd_peer(slow) as peer, transport_to(kind, peer.port, max_connections=1) as transport:
        for _ in range(3):
            first = await get(transport)
            waiting = asyncio.create_task(get(transport))
            await asyncio.sleep(0)
            first.close()
            waiting.cancel()
            await asyncio.wait((waiting,))
        answer = await get(transport)
        answer.close()

        assert answer.status == 200


async def test_a_cancelled_read_closes_its_connection(kind: Kind) -> None:
    """F1: a caller that vanishes mid-stream stops the upstream's work, and its bill."""
    patient = Timeouts(first_byte_s=60, between_bytes_s=60)
    async with odd_peer(slow) as peer, transport_to(kind, peer.port, timeouts=patient) as transport:
        answer = await get(transport)
        assert await answer.read() == b"half"
        reading = asyncio.create_task(body_of(answer))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait((reading,))

        await until(functools.partial(_has_gone, peer, 1), within_s=30)  # sooner than any time-out would close it


async def test_a_cancelled_exchange_frees_its_place(kind: Kind) -> None:
    """F1: callers that vanish, at whatever moment, must not shrink the pool."""
    async with odd_peer(slow) as peer, transport_to(kind, peer.port, max_connections=1) as transport:
        for turns in range(1, 20):
            task = asyncio.create_task(_fetch(transport))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
        answer = await get(transport)
        answer.close()
        answer.close()

        assert answer.status == 200
        await until(functools.partial(_all_gone, peer))


async def test_who_vanishes_as_his_answer_ends_takes_no_connection_with_him(kind: Kind) -> None:
    """F1, F5: his connection is the next caller's by then, who would get a 502 for an answer that the upstream bills.

    Both answers come in one turn of the loop: who wakes first lets the other vanish, and asks on that one's connection.
    """

    async def ask_twice(other: int) -> bytes:
        assert await body_of(await get(transport)) == b"ok"
        asking[other].cancel()
        return await body_of(await get(transport))

    script = both_at_once(OK, always(OK))
    async with odd_peer(script) as peer, transport_to(kind, peer.port) as transport:
        asking = [asyncio.create_task(ask_twice(other)) for other in (1, 0)]
        outcomes = await asyncio.gather(*asking, return_exceptions=True)

    assert b"ok" in outcomes, outcomes


async def test_closing_an_unfinished_answer_closes_its_connection(kind: Kind) -> None:
    """Otherwise the upstream goes on producing (and charging for) tokens nobody reads."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await visit.client_gone()

    async with odd_peer(script) as peer, transport_to(kind, peer.port) as transport:
        answer = await get(transport)
        answer.close()

        await until(functools.partial(_has_gone, peer, 1))


async def test_a_port_nobody_listens_on_is_a_fault(kind: Kind) -> None:
    """A dead upstream is a 502 that says so, at once."""
    async with transport_to(kind, NOBODY) as transport:
        with pytest.raises(Fault) as caught:
            await get(transport)

    assert caught.value.kind is UPSTREAM_REFUSED


async def test_an_unknown_host_is_a_fault(kind: Kind) -> None:
    """A typing error in gateway.yaml is a 502 that says so."""
    patient = Timeouts(connect_s=50)  # a resolver that is out of reach takes its time
    async with transport_to(kind, 80, host="no-such-host.invalid", timeouts=patient) as transport:
        with pytest.raises(Fault) as caught:
            await get(transport)

    assert caught.value.kind is UPSTREAM_REFUSED


async def _fetch(transport: Transport) -> bytes:
    return await body_of(await get(transport))


async def _has_gone(peer: Peer, visits: int) -> bool:
    return peer.gone == visits


async def _all_gone(peer: Peer) -> bool:
    return peer.gone == peer.connections


async def answers_nothing(visit: Visit) -> None:
    """Read a request, and close."""
    await visit.request()


async def slow(visit: Visit) -> None:
    """Begin an answer and never end it."""
    await visit.request()
    await visit.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    await visit.client_gone()
