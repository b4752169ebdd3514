"""What can go wrong: each fault breaks one thing, waits, and heals it. All chance comes from the run's rng.

A fault leaves behind what it broke only in so far as a real one would: a killed server is started again, a full disk
gets space, a link flows again.
"""

import asyncio
import os
import random
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress

from tests.chaos.link import Link
from tests.chaos.stage import Stage
from tests.support.serving import alive

Fault = Callable[[Stage, random.Random], Coroutine[None, None, None]]

LONGEST_S = 2.0
JUMP_US = 3_000_000
STARTS = 5


async def kill_worker(stage: Stage, rng: random.Random) -> None:
    """`kill -9` of one worker; the supervisor starts another."""
    _signal(rng.sample(stage.tree.workers(), 1) if stage.tree.workers() else [], signal.SIGKILL)


async def kill_workers(stage: Stage, rng: random.Random) -> None:
    """Both at once, the flusher among them."""
    _signal(stage.tree.workers(), signal.SIGKILL)


async def kill_tree(stage: Stage, rng: random.Random) -> None:
    """Everything of the gateway at once, as when the machine's memory is gone; started again after a while."""
    pids = [*stage.tree.processes().values(), stage.tree.process.pid]
    _signal(pids, signal.SIGKILL)
    stage.tree.process.wait(10)
    await asyncio.sleep(rng.uniform(0, 0.5))
    await _start_again(stage)


async def retire_worker(stage: Stage, rng: random.Random) -> None:
    """A rolling restart: SIGTERM to one worker after the other, each once the one before is back."""
    for pid in stage.tree.workers():
        _signal([pid], signal.SIGTERM)
        await asyncio.sleep(rng.uniform(0.2, 1.0))


async def freeze_worker(stage: Stage, rng: random.Random) -> None:
    """A worker that stands still, now and then for longer than a lease."""
    workers = stage.tree.workers()
    frozen = rng.sample(workers, 1) if workers else []
    _signal(frozen, signal.SIGSTOP)
    await asyncio.sleep(rng.choice((0.3, 1.0, 7.0)))
    _signal(frozen, signal.SIGCONT)


async def kill_valkey(stage: Stage, rng: random.Random) -> None:
    """`kill -9` of Valkey, which comes back with its append-only file."""
    stage.valkey.kill()
    await asyncio.sleep(rng.uniform(0, LONGEST_S))
    await asyncio.to_thread(stage.valkey.start)


async def freeze_valkey(stage: Stage, rng: random.Random) -> None:
    """Valkey hangs: it takes bytes and answers nothing."""
    if not stage.valkey.running:
        return
    pid = stage.valkey.pid
    _signal([pid], signal.SIGSTOP)
    await asyncio.sleep(rng.uniform(0.1, LONGEST_S))
    _signal([pid], signal.SIGCONT)


async def forget_scripts(stage: Stage, rng: random.Random) -> None:
    """SCRIPT FLUSH, as after a failover."""
    await _tell_valkey(stage, b"SCRIPT FLUSH")


async def flush_valkey(stage: Stage, rng: random.Random) -> None:
    """FLUSHALL: every counter and hold is gone, and with them what had not reached the ledger."""
    await _tell_valkey(stage, b"FLUSHALL")
    stage.flushes_s.append(time.perf_counter())


async def drop_accounts(stage: Stage, rng: random.Random) -> None:
    """The accounts' states alone are lost, as by eviction; holds and events are there."""
    for name in stage.keys:
        for partition in range(stage.partitions):
            await _tell_valkey(stage, f"DEL tw:{{{partition}}}:a:{name}".encode())


async def break_database(stage: Stage, rng: random.Random) -> None:
    """PostgreSQL is killed and recovers; SQLite is locked by another process for a while."""
    if stage.postgres is None:
        return await _lock_sqlite(stage, rng.uniform(0.1, LONGEST_S))
    await asyncio.to_thread(stage.postgres.kill)
    await asyncio.sleep(rng.uniform(0, LONGEST_S / 2))
    return await asyncio.to_thread(stage.postgres.start)


async def fill_disk(stage: Stage, rng: random.Random) -> None:
    """No file of the gateway's can be written, as on a full disk."""
    pids = list(stage.tree.processes().values())
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    await asyncio.sleep(rng.uniform(0.2, LONGEST_S))
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


async def jump_clock(stage: Stage, rng: random.Random) -> None:
    """The limiter's clock moves, as after a failover to a server whose clock is another, and the gateway's own does."""
    stage.clocks.jump(rng.randint(-JUMP_US, JUMP_US), rng.choice((0, 1, -1)) * rng.randint(0, 90_000_000))


async def cut_link(stage: Stage, rng: random.Random) -> None:
    """Connections are reset."""
    _a_link(stage, rng).cut(rng, rng.choice((0.3, 1.0)))


async def half_close_link(stage: Stage, rng: random.Random) -> None:
    """One direction of connections ends."""
    _a_link(stage, rng).half_close(rng, rng.choice((0.3, 1.0)))


async def stall_link(stage: Stage, rng: random.Random) -> None:
    """A link passes nothing on for a while, and nobody is told."""
    async with _a_link(stage, rng).stalled():
        await asyncio.sleep(rng.uniform(0.1, LONGEST_S))


FAULTS: tuple[Fault, ...] = (
    kill_worker,
    kill_workers,
    kill_tree,
    retire_worker,
    freeze_worker,
    kill_valkey,
    freeze_valkey,
    forget_scripts,
    flush_valkey,
    drop_accounts,
    break_database,
    fill_disk,
    jump_clock,
    cut_link,
    half_close_link,
    stall_link,
)
STARTING = (kill_tree, kill_valkey, break_database)
"""Each starts a server again and waits for it: not while the same is under way."""

WEAKENING = (break_database, break_database, fill_disk, freeze_valkey, kill_valkey, stall_link)
DEADLY = (kill_worker, kill_workers, kill_tree)
"""Most is lost where something dies while it waits for something else that is away."""


def _a_link(stage: Stage, rng: random.Random) -> Link:
    """Any, and Valkey's most often: what is asked of it is what must count once."""
    return stage.links[rng.choice([*sorted(stage.links), "valkey", "valkey"])]


async def _start_again(stage: Stage) -> None:
    """As a service manager does: a start that finds its database away ends, and the next one comes."""
    for _ in range(STARTS - 1):
        with suppress(AssertionError):
            await asyncio.to_thread(stage.tree.start)
            return
    await asyncio.to_thread(stage.tree.start)


async def _lock_sqlite(stage: Stage, lasting_s: float) -> None:
    with closing(sqlite3.connect(stage.tree.data_dir / "ledger.db", timeout=5, isolation_level=None)) as other:
        with suppress(sqlite3.OperationalError):
            other.execute("BEGIN EXCLUSIVE")
        await asyncio.sleep(lasting_s)


async def _tell_valkey(stage: Stage, line: bytes) -> None:
    if stage.valkey.running:
        with suppress(OSError):
            await asyncio.to_thread(stage.valkey.call, line)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        if alive(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
