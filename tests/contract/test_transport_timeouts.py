"""The transport port, on both implementations: every stage at which a peer may stall ends in time, and says which."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from gateway.domain.faults import UPSTREAM_TIMEOUT, Fault
from gateway.upstream.transport import Timeouts
from tests.support.odd_peer import Visit, odd_peer
from tests.support.transports import KINDS, Kind, body_of, get, transport_to

pytestmark = pytest.mark.parametrize("kind", KINDS)

SHORT = {
    "first byte": Timeouts(connect_s=20, first_byte_s=0.25, between_bytes_s=60, pool_s=20),
    "between bytes": Timeouts(connect_s=20, first_byte_s=60, between_bytes_s=0.25, pool_s=20),
}
"""By the stage that is to time out; the others outlast a machine that stands still for a moment."""

WITHIN_S = 20.0
"""Long enough for a busy machine, far below the time-outs of a default transport."""


def then_stall(*said: bytes) -> Callable[[Visit], Awaitable[None]]:
    """A script: read a request, say something, and fall silent."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(*said)
        await visit.client_gone()

    return script


def then_drip(head: bytes, drop: bytes) -> Callable[[Visit], Awaitable[None]]:
    """A script: after `head`, a few bytes now and then, each well within the time between bytes."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(head)
        with contextlib.suppress(OSError):
            while not visit.writer.is_closing():
                await visit.say(drop)
                await asyncio.sleep(0.05)

    return script


@pytest.mark.parametrize(
    ("script", "stage"),
    [
        (then_stall(), "first byte"),
        (then_stall(b"HTTP/1.1 200 OK\r\ncontent-le"), "first byte"),
        (then_stall(b"HTTP/1.1 100 Continue\r\n\r\n"), "first byte"),
        (then_drip(b"HTTP/1.1 200 OK\r\n", b"x-drip: 1\r\n"), "first byte"),
        (then_drip(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), "first byte"),
        (then_stall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"), "between bytes"),
        (then_stall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi"), "between bytes"),
        (then_stall(b"HTTP/1.1 200 OK\r\n\r\nhi"), "between bytes"),
        (then_stall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"), "between bytes"),
        (then_stall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhi"), "between bytes"),
        (then_drip(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;", b"x"), "between bytes"),
    ],
)
async def test_a_stall_ends_in_a_time_out_that_names_its_stage(
    kind: Kind, script: Callable[[Visit], Awaitable[None]], stage: str
) -> None:
    """F5: a silent upstream must not hold a caller and a hold on its quota for ever; a drip is no progress either."""
    async with odd_peer(script) as peer, transport_to(kind, peer.port, timeouts=SHORT[stage]) as transport:
        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(Fault) as caught:
                await body_of(await get(transport))

    assert caught.value.kind is UPSTREAM_TIMEOUT
    assert caught.value.internal.startswith(stage)


async def test_a_stall_after_some_bytes_hands_them_out_first(kind: Kind) -> None:
    """What was received is what is charged; it must not be lost to the error."""
    script = then_stall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi")
    short = SHORT["between bytes"]
    async with odd_peer(script) as peer, transport_to(kind, peer.port, timeouts=short) as transport:
        answer = await get(transport)

        assert await answer.read() == b"hi"
        with pytest.raises(Fault):
            await answer.read()


async def test_a_stream_that_never_stops_ends_at_the_total(kind: Kind) -> None:
    """F5: a loop in the model must not run up a bill all night where the operator set a bound."""
    drip = then_drip(b"HTTP/1.1 200 OK\r\n\r\n", b"token ")
    total = Timeouts(first_byte_s=60, between_bytes_s=60, total_s=0.4)
    async with odd_peer(drip) as peer, transport_to(kind, peer.port, timeouts=total) as transport:
        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(Fault) as caught:
                await body_of(await get(transport))

    assert caught.value.kind is UPSTREAM_TIMEOUT
    assert caught.value.internal.startswith("total")


async def test_without_a_total_a_stream_outlives_every_other_time_out(kind: Kind) -> None:
    """A reasoning model that streams for an hour must not be cut while bytes keep coming."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(30):
            await visit.say(b"token ")
            await asyncio.sleep(0.1)

    patient = Timeouts(first_byte_s=2.5, between_bytes_s=2.5)
    async with odd_peer(script) as peer, transport_to(kind, peer.port, timeouts=patient) as transport:
        assert await body_of(await get(transport)) == b"token " * 30
