"""The ledger is away under load, through a whole tree: requests go on, usage waits, and all of it gets there."""

import asyncio
import contextlib
import random
import resource
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.chaos.calls import call
from tests.chaos.run_one import rest
from tests.chaos.stage import Stage, stage
from tests.chaos.verdict import verdict
from tests.support.until import until

ACCOUNTS = ("wide", "minute")
"""One whose limits leave room for all that is asked here, and one that is held to its windows meanwhile."""

CALLERS = 6
ANSWERS = 40
BACKLOG = 60
WITHIN_S = 60

Fault = Callable[[Stage], contextlib.AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def locked(here: Stage) -> AsyncIterator[None]:
    """Another process holds the SQLite file's lock: this one."""
    file = here.tree.data_dir / "ledger.db"
    other = sqlite3.connect(file, timeout=WITHIN_S, isolation_level=None, check_same_thread=False)
    with contextlib.closing(other):
        await asyncio.to_thread(other.execute, "BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextlib.asynccontextmanager
async def full(here: Stage) -> AsyncIterator[None]:
    """No file of the gateway's can grow."""
    _bound(here, 0)
    yield
    _bound(here, resource.RLIM_INFINITY)


@contextlib.asynccontextmanager
async def killed(here: Stage) -> AsyncIterator[None]:
    """PostgreSQL is killed, and is started again on what it had written."""
    assert here.postgres is not None
    await asyncio.to_thread(here.postgres.kill)
    yield
    await asyncio.to_thread(here.postgres.start)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("database", "fault"),
    [("sqlite", locked), ("sqlite", full), ("postgresql", killed)],
    ids=["SQLite locked", "disk full", "PostgreSQL killed"],
)
def test_requests_go_on_and_all_usage_gets_there(tmp_path: Path, database: str, fault: Fault) -> None:
    """D6, A8, B9: while the ledger can't be written, whoever is known is served, and usage waits on the stream; once it
    can, the ledger has one true event for each answer by the upstream's own count, the sums and counters agree, and
    nothing is left. Whoever bills by the ledger is hurt if an event is lost on the way or comes twice.
    """  # noqa: D205
    # A loop of its own, as the driver's links expect: on uvloop a write to a connection that is gone raises.
    assert asyncio.run(_play(tmp_path, database, fault)) == []


async def _play(directory: Path, database: str, fault: Fault) -> list[str]:
    wrong: list[str] = []
    async with stage(directory, database, Path.cwd()) as here:
        over = asyncio.Event()
        callers = [
            asyncio.create_task(call(here, random.Random(f"{name}{number}"), name, lambda: not over.is_set(), wrong))
            for name in ACCOUNTS
            for number in range(CALLERS)
        ]
        await until(lambda: _answered(here, 0.0), WITHIN_S)
        async with fault(here):
            began_s = time.perf_counter()
            await until(lambda: _answered(here, began_s), WITHIN_S)
            await until(lambda: _waits(here), WITHIN_S)
        over.set()
        await asyncio.gather(*callers)
        wrong += await rest(here)
        judged = await verdict(here)
        assert judged.forgiven == 0
        return wrong + judged.wrong


async def _answered(here: Stage, since_s: float) -> bool:
    """Whether enough was asked since then and answered whole; before the fault, for each worker to know the key."""
    return sum(story.whole for story in here.stories.get(ACCOUNTS[0], ()) if story.arrived_s > since_s) >= ANSWERS


async def _waits(here: Stage) -> bool:
    return (await here.left_over())["events"] >= BACKLOG


def _bound(here: Stage, file_bytes: int) -> None:
    for pid in here.tree.processes().values():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
