"""The breaker around the limiter: nobody waits for a server that is known to be silent, and one probe finds it back."""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.domain.decisions import Admitted, Decision
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.breaker import Breaker
from gateway.quota.redis_limiter import RedisLimiter
from gateway.quota.resp import RedisLink
from tests.support.limiters import PARTITIONS, RedisSubject, asked, hydrate, line
from tests.support.until import until
from tests.support.valkey import ValkeyServer

TIMEOUT_S = 2.0


async def refused(limiter: RedisLimiter, number: int, start_s: int = 0) -> str:
    """The internal text of the fault that a reservation ends in."""
    with pytest.raises(Fault) as caught:
        await limiter.reserve(asked(f"r{number}", line(start_s or int(time.time()) // 3600 * 3600, 999)))
    assert caught.value.kind is LIMITER_UNAVAILABLE
    return caught.value.internal


async def closed(breaker: Breaker) -> bool:
    """Whether calls go out again."""
    return not breaker.open


async def test_nobody_waits_while_it_is_open(redis_subject: RedisSubject, valkey: ValkeyServer) -> None:
    """D6: a hung Redis costs the requests that were under way one time-out, and those after it nothing. Before, each
    connection that greeted and then hung cost every caller another.
    """  # noqa: D205
    link = RedisLink(valkey.url, timeout_s=TIMEOUT_S)
    await link.open()
    limiter = RedisLimiter(link, partitions=PARTITIONS)
    await hydrate(redis_subject)
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        await asyncio.gather(*[refused(limiter, number) for number in range(200)])
        assert time.monotonic() - began_s < 2 * TIMEOUT_S
        for number in range(3):
            await refused(limiter, number)
        assert limiter.breaker.open
        began_s, sent = time.monotonic(), limiter.script_runs
        for number in range(500):
            assert "not asked" in await refused(limiter, number)
        assert limiter.script_runs == sent
        assert time.monotonic() - began_s < TIMEOUT_S
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    await until(lambda: closed(limiter.breaker))
    await served(limiter)
    await link.close()


async def served(limiter: RedisLimiter) -> Decision:
    """An admission; asked again while what a hung server took is given back."""
    decision = await limiter.reserve(asked("back", line(int(time.time()) // 3600 * 3600, 9999)))
    assert isinstance(decision, Admitted)
    return decision


@pytest.mark.parametrize(
    ("spoil", "mend", "word"),
    [
        (b"REPLICAOF 127.0.0.1 1", b"REPLICAOF NO ONE", "READONLY"),
        (b"CONFIG SET maxmemory 1", b"CONFIG SET maxmemory 0", "OOM"),
    ],
)
async def test_a_server_that_takes_no_writes_is_unavailable(
    redis_subject: RedisSubject, valkey: ValkeyServer, spoil: bytes, mend: bytes, word: str
) -> None:
    """D6: after a failover to a replica, or out of memory, requests get 503, not 500; the breaker opens, and closes
    when the server takes writes, though it answered readings all along.
    """  # noqa: D205
    limiter = redis_subject.limiter
    await hydrate(redis_subject)
    valkey.call(spoil)
    try:
        texts = [await refused(limiter, number, redis_subject.clock.now_s) for number in range(4)]
        assert word in texts[0]
        assert "not asked" in texts[-1]
        assert limiter.breaker.open
    finally:
        valkey.call(mend)
    await until(lambda: closed(limiter.breaker))
    assert isinstance(await limiter.reserve(asked("r", line(redis_subject.clock.now_s, 9))), Admitted)


@asynccontextmanager
async def loading_server() -> AsyncIterator[str]:
    """A server that greets, and is busy loading its data for every other call."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                length = int((await reader.readline())[1:])
                words.append((await reader.readexactly(length + 2))[:-2])
            fine = words[0] in {b"CLIENT", b"SCRIPT"}
            writer.write(b"+OK\r\n" if fine else b"-LOADING Valkey is loading the dataset in memory\r\n")
        writer.close()

    with tempfile.TemporaryDirectory(prefix="twr") as folder:
        async with await asyncio.start_unix_server(handle, Path(folder) / "s"):
            yield f"unix://{Path(folder) / 's'}"


async def test_a_server_that_loads_its_data_is_unavailable() -> None:
    """D6: a Redis that has just been started answers -LOADING to every call, for minutes where there is much."""
    async with loading_server() as url:
        link = RedisLink(url, timeout_s=10)
        await link.open()
        limiter = RedisLimiter(link, partitions=PARTITIONS)
        texts = [await refused(limiter, number) for number in range(4)]
        assert "LOADING" in texts[0]
        assert "not asked" in texts[-1]
        limiter.breaker.close()
        await link.close()


async def test_one_probe_at_a_time_and_ever_less_often() -> None:
    """A fleet that finds its Redis gone does not keep it down by asking: one call at a time, with growing pauses."""
    loop = asyncio.get_running_loop()
    probes: list[tuple[float, asyncio.Future[None]]] = []

    def probe() -> asyncio.Future[None]:
        future: asyncio.Future[None] = loop.create_future()
        probes.append((loop.time(), future))
        return future

    def asked_again(number: int) -> Callable[[], Awaitable[bool]]:
        async def asked() -> bool:
            return len(probes) == number

        return asked

    breaker = Breaker(probe, failures=2, longest_pause_s=0.4)
    for _ in range(5):
        breaker.fail("gone")
    for number in range(1, 5):
        await until(asked_again(number))
        breaker.fail("gone")
        breaker.succeed()
        assert breaker.open
        ended_s = loop.time()
        probes[-1][1].set_exception(Fault(LIMITER_UNAVAILABLE, "still gone"))
    await until(asked_again(5))
    assert probes[-1][0] - ended_s > 0.19  # the loop's clock counts milliseconds
    assert probes[0][1].done()
    probes[-1][1].set_result(None)
    await until(lambda: closed(breaker))
    breaker.check()


async def test_a_bad_call_does_not_open_it(redis_subject: RedisSubject) -> None:
    """One account whose state is broken fails alone, however often it asks: the others' limits are still checked."""
    await hydrate(redis_subject)
    for partition in range(PARTITIONS):
        await redis_subject.link.call("SET", f"tw:{{{partition}}}:a:broken", "no hash")
    for _ in range(5):
        with pytest.raises(Fault):
            await redis_subject.limiter.bump("broken", 2)
    assert not redis_subject.limiter.breaker.open
