"""Whatever an upstream does wrong, a caller gets an answer or a Fault in time: no hang, and no other exception."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.domain.faults import UPSTREAM_BROKEN, Fault, FaultKind
from gateway.upstream.transport import Timeouts, Transport
from tests.support.odd_peer import Visit, odd_peer
from tests.support.transports import KINDS, Kind, body_of, get, transport_to

pytestmark = pytest.mark.parametrize("kind", KINDS)

Script = Callable[[Visit], Awaitable[None]]
TIMEOUTS = Timeouts(connect_s=20, first_byte_s=20, between_bytes_s=20, pool_s=20)
LENGTH_5 = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def saying(*said: bytes) -> Script:
    """A script: read a request, say something, close."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(*said)

    return script


def resetting(*said: bytes) -> Script:
    """A script: read a request, say something, close with RST."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(*said)
        visit.reset()

    return script


async def closing_at_once(visit: Visit) -> None:
    """Accept, and close."""


async def resetting_at_once(visit: Visit) -> None:
    """Accept, and reset."""
    visit.reset()


async def closing_one_way(visit: Visit) -> None:
    """Say half an answer, and close the sending side alone."""
    await visit.request()
    await visit.say(LENGTH_5 + b"hi")
    visit.writer.write_eof()
    await visit.client_gone()


BROKEN: dict[str, Script] = {
    "closes at once": closing_at_once,
    "resets at once": resetting_at_once,
    "closes unanswered": saying(),
    "resets unanswered": resetting(),
    "closes in the status line": saying(b"HTTP/1.1 20"),
    "closes in the head": saying(b"HTTP/1.1 200 OK\r\ncontent-le"),
    "closes after an interim answer": saying(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "closes in the length": saying(LENGTH_5 + b"hi"),
    "closes before the body": saying(LENGTH_5),
    "closes in a chunk": saying(CHUNKED + b"5\r\nhi"),
    "closes in a chunk size": saying(CHUNKED + b"5"),
    "closes after a chunk": saying(CHUNKED + b"2\r\nhi\r\n"),
    "closes in the last chunk": saying(CHUNKED + b"2\r\nhi\r\n0\r\n"),
    "resets in the length": resetting(LENGTH_5 + b"hi"),
    "closes one way": closing_one_way,
    "speaks another protocol": saying(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "speaks TLS": saying(b"\x15\x03\x01\x00\x02\x02\x16"),
    "sends noise": saying(bytes(range(256)) * 40),
    "sends nothing but line ends": saying(b"\r\n" * 5),
    "has no version": saying(b"HTTP 200 OK\r\n\r\n"),
    "has no status": saying(b"HTTP/1.1 OK\r\n\r\n"),
    "has a negative length": saying(b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello"),
    "has a length of words": saying(b"HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\nhello"),
    "has two lengths": saying(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!"),
    "has an endless length": saying(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nhello"),
    "has a bad chunk size": saying(CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n"),
    "has a negative chunk size": saying(CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n"),
    "has an endless chunk size": saying(CHUNKED + b"F" * 17 + b"\r\nhello\r\n0\r\n\r\n"),
    "has no line end after a chunk": saying(CHUNKED + b"5\r\nhelloworld\r\n0\r\n\r\n"),
    "has NUL in a field": saying(b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 5\r\n\r\nhello"),
    "has no name for a field": saying(b"HTTP/1.1 200 OK\r\n: a\r\ncontent-length: 5\r\n\r\nhello"),
    "has an endless field": saying(b"HTTP/1.1 200 OK\r\nx: ", *([b"y" * 65_536] * 64)),
    "has endless fields": saying(b"HTTP/1.1 200 OK\r\n", *([b"x: y\r\n" * 10_000] * 16)),
    "switches protocols": saying(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN.keys())
async def test_a_peer_that_breaks_http_is_a_broken_upstream(kind: Kind, script: Script) -> None:
    """F5: a cut or garbled answer must never look like a whole one, nor like an error of the gateway's own."""
    async with odd_peer(script) as peer, transport_to(kind, peer.port, timeouts=TIMEOUTS) as transport:
        async with asyncio.timeout(15):
            with pytest.raises(Fault) as caught:
                await body_of(await get(transport))

    assert caught.value.kind is UPSTREAM_BROKEN
    assert caught.value.internal


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhi",
        b"HTTP/1.1 099 Odd\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nx: a\r\n folded\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\nhi",
        b"HTTP/3.7 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        LENGTH_5 + b"hello and more than was announced",
        CHUNKED + b"2\r\nhi\r\n0\r\n" + b"x-trailer: 1\r\n" * 1000 + b"\r\n",
        CHUNKED + b"2;" + b"x" * 100_000 + b"\r\nhi\r\n0\r\n\r\n",
    ],
)
async def test_what_parsers_disagree_on_still_ends(kind: Kind, said: bytes) -> None:
    """Strict or lenient, a parser ends with an answer or a Fault; a hang holds the caller's quota."""
    async with odd_peer(saying(said)) as peer, transport_to(kind, peer.port, timeouts=TIMEOUTS) as transport:
        async with asyncio.timeout(15):
            outcome = await _outcome(transport)

    assert outcome in (UPSTREAM_BROKEN, b"hi", b"hello", b"2\r\nhi\r\n0\r\n\r\n")


@pytest.mark.parametrize("script", [closing_at_once, saying(LENGTH_5 + b"hi"), saying(b"noise\r\n\r\n"), resetting()])
async def test_odd_peers_leave_the_pool_whole(kind: Kind, script: Script) -> None:
    """An upstream that breaks a hundred times must be served normally at the hundred and first."""
    well = False

    async def mending(visit: Visit) -> None:
        await (saying(LENGTH_5 + b"hello") if well else script)(visit)

    async with (
        odd_peer(mending) as peer,
        transport_to(kind, peer.port, timeouts=TIMEOUTS, max_connections=2) as transport,
    ):
        for _ in range(12):
            assert await _outcome(transport) is UPSTREAM_BROKEN
        well = True

        assert await _outcome(transport) == b"hello"


async def _outcome(transport: Transport) -> bytes | FaultKind:
    try:
        return await body_of(await get(transport))
    except Fault as fault:
        return fault.kind
