"""What becomes of calls when Redis dies, hangs or talks nonsense: a fault in time, and a link that mends itself."""

import asyncio
import os
import signal
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme
import uvloop

from gateway.domain.decisions import Admitted, Counter, Missing
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota import resp
from gateway.quota.redis_limiter import RedisLimiter
from gateway.quota.resp import UNSENT_BYTES, RedisLink
from gateway.quota.scripts import load_script
from tests.support.limiters import ACCOUNT, PARTITIONS, asked, line, settled
from tests.support.until import until
from tests.support.valkey import ValkeyServer

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def opened(url: str, timeout_s: float = 5) -> RedisLink:
    """An open link; at the first try or, where a machine is too busy for a short time-out, at a later one."""
    link = RedisLink(url, timeout_s=timeout_s)
    with suppress(Fault):
        await link.open()
    await until(lambda: connected(link))
    return link


async def connected(link: RedisLink) -> bool:
    """Whether the link has mended itself."""
    return link.connected


@asynccontextmanager
async def server(handler: Handler, path: Path | None = None) -> AsyncIterator[str]:
    """A server that behaves as the test likes; gives its URL."""
    with tempfile.TemporaryDirectory(prefix="twr") as folder:
        place = path or Path(folder) / "s"
        async with await asyncio.start_unix_server(handler, place) as listening:
            yield f"unix://{place}"
            listening.close()


async def test_pending_calls_fail_when_the_server_dies(valkey: ValkeyServer) -> None:
    """Requests under way learn at once that nobody will answer, and the link comes back with the server (D6)."""
    link = await opened(valkey.url)
    os.kill(valkey.pid, signal.SIGSTOP)
    calls = [link.call("INCR", "n") for _ in range(50)]
    await asyncio.sleep(0)
    valkey.kill()
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, Fault)
        assert result.kind is LIMITER_UNAVAILABLE
    assert not link.connected
    with pytest.raises(Fault):
        await link.call("PING")
    valkey.start()
    await until(lambda: connected(link))
    assert await link.call("PING") == b"PONG"
    await link.close()


async def test_a_hung_server_is_given_up_in_time(valkey: ValkeyServer) -> None:
    """A server that is frozen costs each request one short time-out, never more; the next ones fail at once (D6)."""
    timeout_s = 2
    link = await opened(valkey.url, timeout_s)
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        results = await asyncio.gather(*[link.call("PING") for _ in range(100)], return_exceptions=True)
        assert timeout_s - 0.1 < time.monotonic() - began_s < 2 * timeout_s
        assert all(isinstance(result, Fault) and "within 2 s" in result.internal for result in results)
        began_s = time.monotonic()
        with pytest.raises(Fault):
            await link.call("PING")
        assert time.monotonic() - began_s < timeout_s, "the time-out was waited for again"
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    await until(lambda: connected(link))
    assert await link.call("PING") == b"PONG"
    await link.close()


async def test_a_call_whose_answer_was_lost_is_not_sent_again(valkey: ValkeyServer) -> None:
    """What may have run never runs twice by the link's doing: a reservation that comes again after its own reap would
    be held anew, beside the marker of the first.
    """  # noqa: D205
    link = await opened(valkey.url, timeout_s=1)
    script = load_script("peek")
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        lost = link.call("INCR", "n"), link.evaluate(script.sha, b"redis.call('INCR', KEYS[1])", (1, "m"))
        for result in await asyncio.gather(*lost, return_exceptions=True):
            assert isinstance(result, Fault)
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    await until(lambda: connected(link))
    assert await link.call("INCR", "n") <= 2
    assert await link.call("GET", "m") is None
    await link.close()


async def test_a_slow_server_that_answers_is_kept(valkey: ValkeyServer) -> None:
    """The time-out is each call's own: a busy link whose answers come is never given up."""
    link = await opened(valkey.url, timeout_s=2)
    for _ in range(10):
        assert await link.call("BLPOP", "empty", "0.25") is None
    assert link.connected
    await link.close()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_stalled_loop_is_no_dead_server(
    valkey: ValkeyServer, loop_factory: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the gateway itself stood still, the server gets its chance to answer: one pause doesn't fail all calls."""
    monkeypatch.setattr(resp, "STALL_GRACE_S", 10.0)  # a chance on a busy machine, too

    async def stall() -> None:
        link = await opened(valkey.url, timeout_s=0.5)
        calls = [link.call("PING") for _ in range(100)]
        time.sleep(0.7)  # noqa: ASYNC251  # to block the loop is what is tested
        assert await asyncio.gather(*calls) == [b"PONG"] * 100
        assert link.connected
        await link.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(stall())


async def test_closing_ends_an_opening_that_hangs(valkey: ValkeyServer) -> None:
    """A gateway told to stop while it waits for Redis stops."""
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        link = RedisLink(valkey.url, timeout_s=30)
        opening = asyncio.ensure_future(link.open())
        await asyncio.sleep(0.01)
        await link.close()
        with pytest.raises(Fault, match="closed"):
            await opening
    finally:
        os.kill(valkey.pid, signal.SIGCONT)


async def test_a_link_that_never_opens_says_so_in_time_and_goes_on_trying(valkey: ValkeyServer) -> None:
    """A gateway that starts before its Redis reports it plainly, and serves once Redis is there."""
    valkey.kill()
    link = RedisLink(valkey.url, timeout_s=0.5)
    with pytest.raises(Fault, match="no connection to Redis at ") as caught:
        await link.open()
    assert caught.value.kind is LIMITER_UNAVAILABLE
    valkey.start()
    await until(lambda: connected(link))
    await link.close()


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n+OK\r\n+OK\r\n", b"\x15\x03\x01"])
async def test_what_is_no_redis_is_refused(nonsense: bytes) -> None:
    """A URL that points at something else is a fault with a clear text, not a hang and not a crash."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(nonsense)
        await writer.drain()
        await reader.read()
        writer.close()

    async with server(handler) as url:
        link = RedisLink(url, timeout_s=0.3)
        with pytest.raises(Fault, match="Redis"):
            await _open_and_ask(link)
        await link.close()


async def test_replies_may_come_in_any_pieces() -> None:
    """A network cuts where it likes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"tollway\r\n")
        for byte in b"+OK\r\n$3\r\na\r\n\r\n*2\r\n:7\r\n$-1\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()
        writer.close()

    async with server(handler) as url:
        link = await opened(url)
        first, second = link.call("GET", "k"), link.call("MGET", "n")
        assert (await first, await second) == (b"a\r\n", [7, None])
        await link.close()


async def test_a_server_that_stops_reading_bounds_what_waits(valkey: ValkeyServer) -> None:
    """A stalled server can't make the gateway eat its memory: calls beyond the bound fail at once."""
    link = await opened(valkey.url, timeout_s=20)
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        word = b"x" * (UNSENT_BYTES // 8)
        calls = []
        for _ in range(40):
            calls.append(link.call("ECHO", word))
            await asyncio.sleep(0)
        failed = [call.exception() for call in calls if call.done()]
        assert 20 < len(failed) < 40
        assert all(isinstance(error, Fault) and "slower" in error.internal for error in failed)
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    assert await asyncio.gather(*[call for call in calls if not call.done()])
    assert await link.call("PING") == b"PONG"
    await link.close()


async def test_tls_is_verified(valkey: ValkeyServer) -> None:
    """`rediss://` talks to the server it names and to no other: the counters and events of all callers pass here."""
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_unix_connection(valkey.url.removeprefix("unix://"))
        await asyncio.gather(_pipe(reader, to_writer), _pipe(to_reader, writer))

    listening = await asyncio.start_server(handler, "localhost", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    with authority.cert_pem.tempfile() as trusted, stranger.cert_pem.tempfile() as other:
        link = await opened(f"rediss://localhost:{port}/0?ssl_ca_certs={trusted}")
        assert await link.call("PING") == b"PONG"
        await link.close()
        wary = RedisLink(f"rediss://localhost:{port}?ssl_ca_certs={other}", timeout_s=5)
        with pytest.raises(Fault, match="certificate verify failed"):
            await wary.open()
        await wary.close()
    listening.close()
    await listening.wait_closed()


async def test_a_settlement_outlives_an_outage(valkey: ValkeyServer) -> None:
    """Usage that was settled while Redis was away is charged once it is back: not one token lost (A8)."""
    link = await opened(valkey.url)
    limiter = RedisLimiter(link, partitions=PARTITIONS)
    valkey.kill()
    await until(lambda: _not(connected(link)))
    waiting = limiter.settle(settled(asked("r1"), event=b"kept"))
    assert limiter.unsettled == 1
    assert await limiter.drain(0.01) == 1
    valkey.start()
    await asyncio.wait_for(waiting, 20)
    assert limiter.unsettled == 0
    found = [await link.call("XRANGE", f"tw:{{{number}}}:events", "-", "+") for number in range(PARTITIONS)]
    assert [entry[1] for entries in found for entry in entries] == [[b"e", b"kept"]]
    await link.close()


async def test_a_reservation_nobody_heard_of_is_given_back(valkey: ValkeyServer) -> None:
    """A time-out that hid an admission leaks neither tokens nor a slot: the account isn't locked out for it."""
    link = await opened(valkey.url, timeout_s=1)
    limiter = RedisLimiter(link, partitions=PARTITIONS)
    start_s = int(time.time()) - 60
    assert await limiter.reserve(asked("r0")) == Missing()
    await limiter.hydrate(ACCOUNT, 1, (Counter("requests/hour", 0, 0),), start_s + 86_400, "")
    assert isinstance(await limiter.reserve(asked("r1", line(start_s, 9))), Admitted)
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Fault):
            await limiter.reserve(asked("r2", line(start_s, 9)))
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    assert await limiter.drain(20) == 0
    assert await limiter.peek(ACCOUNT) == (1, 1, {"requests/hour": (start_s, 1)})
    await link.close()


async def _open_and_ask(link: RedisLink) -> None:
    await link.open()
    await link.call("PING")


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def _not(condition: Awaitable[bool]) -> bool:
    return not await condition
