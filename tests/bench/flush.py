"""`make flush`: how long usage takes from its settlement to the ledger's commit, and how much a flusher carries.

Three processes on a real Valkey: this one, a loader that puts events on the usage stream by the clock, and one flusher
as a worker runs it, on SQLite and then on PostgreSQL with every commit on disk. First at a pace, then as fast as it
goes through what was put there beforehand. The ledger's events and sums must hold just what was put there: 1 if not.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gateway.domain.usage import UsageEvent
from gateway.ledger.ledger import Ledger
from gateway.ledger.partitions import make_partitions
from gateway.ledger.schema import ensure_schema
from gateway.metering.flusher import Flusher
from gateway.quota.keys import Keyspace
from gateway.quota.redis_links import Link, link_of
from gateway.quota.usage_stream import RedisUsageStream
from gateway.settings.metering import Metering
from gateway.settings.model import Redis
from tests.support.ledgers import an_event, packed, rows_of, url_of
from tests.support.postgres import PostgresServer
from tests.support.valkey import ValkeyServer

ACCOUNTS = 2_000
TURN_S = 0.01
TIMEOUT_S = 30.0
PATIENCE_S = 120.0
DURABLE = ("fsync=on", "synchronous_commit=on", "full_page_writes=on", "shared_buffers=128MB")
INPUT_TOKENS, OUTPUT_TOKENS = 311, 97


class TimedLedger(Ledger):
    """The product's ledger, which notes how old each event was when its transaction had been committed, in ms."""

    lags_ms: list[int]
    done_s: float

    async def take_events(self, batch: Sequence[UsageEvent]) -> int:
        """Take them, and note their ages."""
        new = await super().take_events(batch)
        self.done_s = time.time()
        self.lags_ms += [int(self.done_s * 1000) - event.settled_ms for event in batch]
        return new


def main() -> int:
    """Run the part that the flags name; without one, all of it."""
    asked = _arguments()
    if asked.load:
        asyncio.run(_load(asked.load, asked.events, asked.per_s))
        return 0
    if asked.flush:
        asyncio.run(_flush(asked.flush[0], asked.flush[1], asked.events))
        return 0
    print(f"{asked.per_s:,} events/s for {asked.events / asked.per_s:.0f} s, then {asked.events:,} at once\n")
    print(f"{'ledger':<12}{'lag p50':>10}{'p99':>10}{'worst':>10}{'ceiling':>14}{'bytes/event':>14}")
    return max([_measured(name, asked) for name in asked.ledgers])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-s", type=int, default=5_000, help="events a second of the paced part")
    parser.add_argument("--events", type=int, default=50_000, help="events of each part")
    parser.add_argument("--ledgers", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--load", metavar="REDIS", help=argparse.SUPPRESS)
    parser.add_argument("--flush", nargs=2, metavar=("REDIS", "LEDGER"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured(name: str, asked: argparse.Namespace) -> int:
    """Both parts on one database, each from nothing."""
    with (
        tempfile.TemporaryDirectory(prefix="twf") as folder,
        ValkeyServer(Path(folder), "--appendonly", "yes") as redis,
    ):
        with _ledger(name, Path(folder), "paced") as url, _part("--flush", redis.url, url, asked) as flusher:
            with _part("--load", redis.url, "", asked):
                paced = _said(flusher)
            agreed = _agrees(url, asked.events)
        empty = _memory(redis)
        with _ledger(name, Path(folder), "ceiling") as url:
            with _part("--load", redis.url, "", argparse.Namespace(events=asked.events, per_s=10**9)):
                pass
            each = (_memory(redis) - empty) / asked.events
            with _part("--flush", redis.url, url, asked) as flusher:
                ceiling = _said(flusher)
            agreed = agreed and _agrees(url, asked.events)
    lags = sorted(paced["lags_ms"])
    p50, p99, worst = lags[len(lags) // 2], lags[len(lags) * 99 // 100], lags[-1]
    mark = "" if agreed else "  ! the ledger does not hold what was put on the stream"
    rate = asked.events / (ceiling["done_s"] - ceiling["begun_s"])
    print(f"{name:<12}{p50:>7} ms{p99:>7} ms{worst:>7} ms{rate:>12,.0f}/s{each:>14.0f}{mark}", flush=True)
    return 0 if agreed else 1


@contextmanager
def _ledger(name: str, folder: Path, part: str) -> Iterator[str]:
    """The URL of an empty ledger whose commits are on disk."""
    if name == "sqlite":
        url = url_of(folder / f"{part}.db")
        asyncio.run(_prepare(url))
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="twf") as path, PostgresServer(Path(path), *DURABLE) as server:
        asyncio.run(_prepare(server.url()))
        yield server.url()


async def _prepare(url: str) -> None:
    await ensure_schema(url)
    ledger = Ledger.open(url)
    await make_partitions(ledger, time.time_ns() // 1_000_000)
    await ledger.close()


@contextmanager
def _part(flag: str, redis: str, ledger: str, asked: argparse.Namespace) -> Iterator[subprocess.Popen[bytes]]:
    """This file as another process; the block ends when that has."""
    words = [flag, redis, *([ledger] if ledger else []), "--events", str(asked.events), "--per-s", str(asked.per_s)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.flush", *words], stdout=subprocess.PIPE, env=os.environ
    )
    try:
        yield process
        if process.wait(PATIENCE_S):
            raise SystemExit(f"{flag} failed")
    finally:
        process.kill()
        process.wait()


def _said(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(process.communicate(timeout=PATIENCE_S)[0] or b"{}")
    return said


def _agrees(url: str, events: int) -> bool:
    """Whether events, hours and days hold what was put there, to the unit."""
    true = events, events * INPUT_TOKENS, events * OUTPUT_TOKENS
    sums = "sum(requests), sum(input_tokens), sum(output_tokens)"
    found = [rows_of(url, f"SELECT {sums} FROM {of}")[0] for of in ("events", "usage_hourly", "usage_daily")]
    return all(tuple(int(part or 0) for part in row) == true for row in found)


def _memory(redis: ValkeyServer) -> int:
    lines = redis.call(b"INFO memory").decode().splitlines()
    return int(next(line for line in lines if line.startswith("used_memory_dataset:")).partition(":")[2])


async def _load(redis: str, count: int, per_s: int) -> None:
    """Put `count` events on the stream, each when it is due, settled at that moment."""
    link, settings = await _open(redis), Redis()
    keyspace = Keyspace(settings.namespace, settings.partitions)
    sent, begun_s = 0, time.monotonic()
    while sent < count:
        due = min(count, int((time.monotonic() - begun_s) * per_s) + 1, sent + 1_000)
        now_ms = time.time_ns() // 1_000_000
        await asyncio.gather(*[_put(link, keyspace, number, now_ms) for number in range(sent, due)])
        sent = due
        await asyncio.sleep(TURN_S if per_s < count else 0)
    await link.close()


def _put(link: Link, keyspace: Keyspace, number: int, now_ms: int) -> "asyncio.Future[Any]":
    account_id = f"account-{number * 7_919 % ACCOUNTS}"
    event = an_event(
        f"req_{number:032x}",
        account_id=account_id,
        admitted_ms=now_ms - 900,
        settled_ms=now_ms,
        input_tokens=INPUT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
    )
    return link.call("XADD", keyspace.of(account_id).events, "*", "e", packed(event))


async def _flush(redis: str, url: str, count: int) -> None:
    """Flush as a worker does, until `count` events were taken; tell how old they were."""
    link, settings, ledger = await _open(redis), Redis(), TimedLedger.open(url)
    ledger.lags_ms = []
    done = asyncio.Event()

    def on_flushed(_: int, _took_s: float) -> None:
        if len(ledger.lags_ms) >= count:
            done.set()

    flusher = Flusher(
        RedisUsageStream(link, settings.namespace, settings.partitions),
        ledger,
        owner="bench",
        interval_s=Metering().flush_interval_ms / 1000,
        on_flushed=on_flushed,
        forget=_forget,
    )
    begun_s = time.time()
    task = asyncio.create_task(flusher.run())
    with suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), PATIENCE_S)
    task.cancel()
    await asyncio.wait({task})
    print(json.dumps({"lags_ms": ledger.lags_ms, "begun_s": begun_s, "done_s": ledger.done_s}))
    await ledger.close()
    await link.close()


async def _forget(account_id: str) -> None:
    raise RuntimeError(f"the stream lost entries of {account_id}")


async def _open(redis: str) -> Link:
    link = link_of(redis, timeout_s=TIMEOUT_S)
    await link.open()
    return link


if __name__ == "__main__":
    sys.exit(main())
