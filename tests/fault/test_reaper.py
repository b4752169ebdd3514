"""The reaper beside a Redis that stands still: nobody's living requests are taken for dead."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from gateway.domain.decisions import Admitted, Counter, Renewal
from gateway.domain.usage import UsageEvent
from gateway.quota import reaper as reaper_module
from gateway.quota import resp
from gateway.quota.limiter import Limiter
from gateway.quota.memory_limiter import MemoryLimiter
from gateway.quota.reaper import Reaper
from gateway.quota.redis_limiter import RedisLimiter
from gateway.quota.resp import RedisLink
from tests.support.limiters import ACCOUNT, PARTITIONS, asked, line, told
from tests.support.until import until
from tests.support.valkey import ValkeyServer

LEASE_MS = 2_500
"""Longer than a busy machine holds a process up."""

LATE_S = 2.0


class Worker:
    """A limiter of its own and a reaper; the requests in `alive` run here."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.turns: list[bool] = []
        self.alive: list[UsageEvent] = []
        self.reaper = Reaper(limiter, self.renew)

    async def renew(self, *, everything: bool) -> None:
        """At every turn, whether or not it is due."""
        self.turns.append(everything)
        await self.limiter.renew([Renewal(each.request_id, ACCOUNT, LEASE_MS, each) for each in self.alive])

    async def has_turned(self) -> bool:
        """Whether the reaper came by since `turns` was emptied."""
        return bool(self.turns)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper_module, "PAUSE_S", 0.1)
    monkeypatch.setattr(reaper_module, "SPREAD_S", 0.05)
    monkeypatch.setattr(reaper_module, "PATIENCE_S", 3.0)
    monkeypatch.setattr(resp, "LONGEST_PAUSE_S", 0.2)  # each is back well within the others' patience


@pytest.fixture
async def workers(valkey: ValkeyServer) -> AsyncIterator[list[Worker]]:
    """Two, whose reapers run."""
    links = [RedisLink(valkey.url, timeout_s=0.8) for _ in range(2)]
    await asyncio.gather(*[link.open() for link in links])
    there = [Worker(RedisLimiter(link, partitions=PARTITIONS, longest_pause_s=0.2)) for link in links]
    tasks = [asyncio.create_task(worker.reaper.run()) for worker in there]
    yield there
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await asyncio.gather(*[link.close() for link in links])


async def reserve(limiter: Limiter, request_id: str, start_s: int) -> UsageEvent:
    """A request that runs."""
    about = told(request_id, start_s * 1000, 3)
    request = asked(request_id, line(start_s, 9), lease_ms=LEASE_MS, about=about)
    assert isinstance(await limiter.reserve(request), Admitted)
    return about


async def known(limiter: Limiter) -> int:
    """The account is known; the start of its window."""
    start_s = int(time.time()) - 60
    assert await limiter.hydrate(ACCOUNT, 1, (Counter("requests/hour", start_s, 0),), start_s + 86_400, "")
    return start_s


async def test_after_an_outage_the_living_are_renewed_before_the_dead_are_reaped(
    workers: list[Worker], valkey: ValkeyServer, link: RedisLink
) -> None:
    """A8: when Redis hangs for longer than a lease, all leases end. The first worker to reach it again would settle
    every request of the others as dead, at its input; it waits for them instead.
    """  # noqa: D205
    observer = RedisLimiter(link, partitions=PARTITIONS)
    start_s = await known(observer)
    for number, worker in enumerate(workers):
        worker.alive.append(await reserve(worker.limiter, f"alive{number}", start_s))
    await reserve(workers[0].limiter, "dead", start_s)

    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        stopped_s = time.monotonic()

        async def over() -> bool:
            return time.monotonic() > stopped_s + 1.2 * LEASE_MS / 1000

        await until(over)
    finally:
        os.kill(valkey.pid, signal.SIGCONT)

    async def reaped() -> bool:
        return sum(worker.reaper.reaped for worker in workers) > 0

    await until(reaped)
    state = await observer.peek(ACCOUNT)
    assert state is not None
    assert state[1] == 2
    assert sum(worker.reaper.reaped for worker in workers) == 1


async def test_a_worker_that_stood_still_renews_all_it_holds_and_lets_others_do_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A8: a machine that wakes up finds every lease over. Each worker's first deed is to keep its own; it takes no
    other for dead before that one had the time to do the same.
    """  # noqa: D205
    monkeypatch.setattr(reaper_module, "LATE_S", LATE_S)
    limiter = MemoryLimiter()
    start_s = await known(limiter)
    mine, theirs = [await reserve(limiter, name, start_s) for name in ("mine", "theirs")]
    worker = Worker(limiter)
    task = asyncio.create_task(worker.reaper.run())
    await until(worker.has_turned)
    worker.alive.append(mine)
    time.sleep(1.2 * LEASE_MS / 1000)  # noqa: ASYNC251  # the standstill

    worker.turns.clear()
    await until(worker.has_turned)
    assert worker.turns[:1] == [True]
    other = Worker(limiter)
    other.alive.append(theirs)
    await other.renew(everything=True)
    worker.turns.clear()
    await until(worker.has_turned)
    assert worker.turns[:1] == [False]
    state = await limiter.peek(ACCOUNT)
    assert state is not None
    assert state[1] == 2

    async def reaped() -> bool:
        return worker.reaper.reaped == 1

    await until(reaped)
    task.cancel()
