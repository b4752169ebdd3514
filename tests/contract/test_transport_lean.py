"""What the lean transport promises beyond the port: the guards and the economies of the hot path."""

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import trustme

from gateway.domain.faults import UPSTREAM_BROKEN, UPSTREAM_REFUSED, UPSTREAM_TIMEOUT, Fault
from gateway.upstream.tls import verifying_context
from gateway.upstream.transport import Answer, Timeouts, Transport
from tests.support.odd_peer import Peer, Visit, always, odd_peer
from tests.support.transports import body_of, get, transport_to
from tests.support.until import until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
POISON = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"


async def test_a_second_answer_is_not_kept_for_the_next_request() -> None:
    """Response-queue poisoning: one account would read another's answer."""
    async with odd_peer(always(OK + POISON)) as peer, transport_to("lean", peer.port) as transport:
        for _ in range(3):
            assert await body_of(await get(transport)) == b"ok"

    assert peer.connections == 3


async def test_bytes_nobody_asked_for_close_an_idle_connection() -> None:
    """Response-queue poisoning again: the next caller would get them."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(OK)
        await peer.release.wait()
        await visit.say(POISON)
        await visit.client_gone()

    async with odd_peer(script) as peer, transport_to("lean", peer.port) as transport:
        assert await body_of(await get(transport)) == b"ok"
        peer.release.set()

        await until(functools.partial(_has_gone, peer, 1))


async def test_bytes_on_a_new_connection_before_the_request_are_no_answer() -> None:
    """A peer that speaks first isn't HTTP; whatever the race, the caller gets an answer or a Fault, and no hang."""

    async def script(visit: Visit) -> None:
        await visit.say(OK)
        await visit.client_gone()

    async with odd_peer(script) as peer:
        for _ in range(20):
            async with transport_to("lean", peer.port) as transport:
                outcome = await _outcome(transport)
                assert isinstance(outcome, Fault) or await body_of(outcome) == b"ok"


async def test_an_early_answer_stops_the_upload() -> None:
    """A 413 must reach the caller while the caller still waits for the rest of its own body."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await visit.client_gone()

    stopped = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"some"
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with odd_peer(script) as peer, transport_to("lean", peer.port, idle_s=60) as transport:
        answer = await transport.send(b"POST", b"/", [], endless())

        assert answer.status == 413
        assert await body_of(answer) == b"no"
        assert stopped.is_set()
        await until(functools.partial(_has_gone, peer, 1))


async def test_a_slow_reader_stops_a_fast_upstream() -> None:
    """F1: a caller on a slow line must not make the gateway hold gigabytes."""
    sent = 0

    async def script(visit: Visit) -> None:
        nonlocal sent
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(400):
            await visit.say(b"x" * 65_536)
            sent += 65_536

    async with odd_peer(script) as peer, transport_to("lean", peer.port) as transport:
        answer = await get(transport)
        stalled_at = await _settled(lambda: sent)
        assert stalled_at < 20_000_000

        assert len(await body_of(answer)) == 400 * 65_536


async def test_a_slow_upstream_stops_a_fast_uploader() -> None:
    """The other way round: the body's source is asked for no more than the upstream takes."""
    asked = 0

    async def script(visit: Visit) -> None:
        await peer.release.wait()
        await visit.request()
        await visit.say(OK)

    async def fast() -> AsyncIterator[bytes]:
        nonlocal asked
        for _ in range(400):
            asked += 65_536
            yield b"x" * 65_536

    async with odd_peer(script) as peer, transport_to("lean", peer.port) as transport:
        sending = asyncio.create_task(transport.send(b"POST", b"/", [], fast()))
        assert await _settled(lambda: asked) < 20_000_000
        peer.release.set()

        assert await body_of(await sending) == b"ok"
    assert asked == 400 * 65_536


async def test_an_upstream_that_takes_no_more_of_the_body_times_out() -> None:
    """A stuck upstream must not hold the upload, its memory and its slot for ever."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await peer.release.wait()

    async def fast() -> AsyncIterator[bytes]:
        for _ in range(400):
            yield b"x" * 65_536

    short = Timeouts(between_bytes_s=0.2)
    async with odd_peer(script) as peer, transport_to("lean", peer.port, timeouts=short) as transport:
        with pytest.raises(Fault) as caught:
            await transport.send(b"POST", b"/", [], fast())

    assert caught.value.kind is UPSTREAM_TIMEOUT
    assert caught.value.internal.startswith("between bytes")


async def test_a_slow_uploader_is_not_the_upstreams_fault() -> None:
    """A caller who thinks for longer than `first_byte_s` mid-upload must not be answered 504."""

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(0.4)
            yield b"x"

    short = Timeouts(first_byte_s=1, between_bytes_s=1)
    async with odd_peer(always(OK)) as peer, transport_to("lean", peer.port, timeouts=short) as transport:
        assert await body_of(await transport.send(b"POST", b"/", [], slow())) == b"ok"


@pytest.mark.parametrize("secure", [False, True])
async def test_a_reader_that_pauses_is_not_the_upstreams_fault(secure: bool) -> None:
    """A caller who stops reading for longer than `between_bytes_s` must get the rest, not an error."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (200 * 65_536))
        await visit.say(*([b"x" * 65_536] * 200))

    peer_tls, our_tls = both_sides() if secure else (None, None)
    short = Timeouts(between_bytes_s=1)
    async with (
        odd_peer(script, tls=peer_tls) as peer,
        transport_to("lean", peer.port, timeouts=short, tls=our_tls) as transport,
    ):
        answer = await get(transport)
        await asyncio.sleep(1.8)

        assert len(await body_of(answer)) == 200 * 65_536


@pytest.mark.parametrize(
    ("said", "endless"),
    [
        (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 50),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;", b"y" * 1000),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 50),
    ],
)
async def test_bytes_that_are_no_body_are_bounded(said: bytes, endless: bytes) -> None:
    """A head, an extension or a trailer without end must not fill the gateway's memory until a time-out."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(said)
        while not visit.writer.is_closing():
            await visit.say(endless)

    async with odd_peer(script) as peer, transport_to("lean", peer.port) as transport:
        with pytest.raises(Fault) as caught:
            await body_of(await get(transport))

    assert caught.value.kind is UPSTREAM_BROKEN
    assert "too many" in caught.value.internal or "65536" in caught.value.internal


async def test_a_head_of_too_many_fields_is_broken() -> None:
    """Each field costs more memory here than it cost to send."""
    head = b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"content-length: 0\r\n\r\n"
    async with odd_peer(always(head)) as peer, transport_to("lean", peer.port) as transport:
        with pytest.raises(Fault) as caught:
            await get(transport)

    assert caught.value.kind is UPSTREAM_BROKEN


async def test_an_idle_connection_is_closed_in_time() -> None:
    """Idle sockets to every upstream for ever are a leak on both sides."""
    async with odd_peer(always(OK)) as peer, transport_to("lean", peer.port, idle_s=0.2) as transport:
        await body_of(await get(transport))

        await until(functools.partial(_has_gone, peer, 1))


async def test_bytes_that_wait_behind_a_stalled_loop_are_no_time_out() -> None:
    """One slow turn of the loop must not cut every stream at once."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
        await peer.release.wait()
        await visit.say(b"late")

    short = Timeouts(between_bytes_s=0.4)
    async with odd_peer(script) as peer, transport_to("lean", peer.port, timeouts=short) as transport:
        answer = await get(transport)
        peer.release.set()
        stall_until = asyncio.get_running_loop().time() + 1.0
        while asyncio.get_running_loop().time() < stall_until:
            pass  # one turn of the loop that takes a second

        assert await body_of(answer) == b"late"


async def test_a_request_costs_no_task() -> None:
    """The budget of the hot path (design §8): a task per request is a tenth of it."""
    async with odd_peer(always(OK)) as peer, transport_to("lean", peer.port) as transport:
        await body_of(await get(transport))
        before = asyncio.all_tasks()
        tasks: set[asyncio.Task[object]] = set()
        loop = asyncio.get_running_loop()
        loop.set_task_factory(functools.partial(_noted, tasks))
        try:
            for _ in range(10):
                await body_of(await get(transport))
        finally:
            loop.set_task_factory(None)

        assert not tasks
        assert asyncio.all_tasks() == before


async def test_after_aclose_nothing_is_open_and_nothing_opens() -> None:
    """A reload swaps transports; the old one must leave no socket, timer or waiter behind."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.client_gone()

    async with odd_peer(script) as peer, transport_to("lean", peer.port, max_connections=2) as transport:
        waiting = [asyncio.create_task(_outcome(transport)) for _ in range(4)]
        await until(functools.partial(_has_met, peer, 2))
        await transport.aclose()

        assert all(isinstance(outcome, Fault) for outcome in await asyncio.gather(*waiting))
        with pytest.raises(Fault) as caught:
            await get(transport)
        assert caught.value.kind is UPSTREAM_REFUSED
        await until(functools.partial(_has_gone, peer, 2))


def both_sides() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a peer at 127.0.0.1, and for a transport that trusts it."""
    authority = trustme.CA()
    peer_tls, our_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), verifying_context()
    authority.issue_cert("127.0.0.1").configure_cert(peer_tls)
    authority.configure_trust(our_tls)
    return peer_tls, our_tls


async def _outcome(transport: Transport) -> Answer | Fault:
    try:
        return await get(transport)
    except Fault as fault:
        return fault


async def _has_gone(peer: Peer, visits: int) -> bool:
    return peer.gone == visits


async def _has_met(peer: Peer, visits: int) -> bool:
    return peer.connections == visits


async def _settled(size: Callable[[], int]) -> int:
    """The size once it has stopped growing for a quarter of a second."""
    seen = -1
    while seen != size():
        seen = size()
        await asyncio.sleep(0.25)
    return seen


def _noted(
    tasks: set[asyncio.Task[object]], loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **_: object
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop)
    tasks.add(task)
    return task
