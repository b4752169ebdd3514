"""All that a run of chaos needs, each part behind a link of its own: callers, gateway, upstream, Valkey, database.

callers — link — tollway serve (2 workers) — link — upstream that keeps the truth
                          |— link — Valkey        |— link — PostgreSQL (SQLite lies in the data directory)
"""

import asyncio
import contextlib
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gateway.domain.accounts import ApiKey
from gateway.domain.limits import Limit, Tier, WhenUnavailable
from gateway.identity.keys import new_key
from gateway.ledger.ledger import Ledger
from gateway.ledger.schema import ensure_schema
from gateway.settings.deployment import deployment_of
from gateway.settings.load import load
from gateway.settings.tiers import tier_of
from tests.chaos.clocks import Clocks
from tests.chaos.link import Dial, Link, Streams, link
from tests.support import outside
from tests.support.postgres import PostgresServer
from tests.support.serving import Serving
from tests.support.truth_story import Story
from tests.support.truth_upstream import TrueUpstream, true_upstream
from tests.support.valkey import ValkeyServer

PARTITIONS = 4
LEASE_S = 5
LOCAL_SHARE = 0.25
WORKERS = 2
CALLERS = 8
"""To an account, each with a connection of its own."""
SETTINGS = """
listen: {{ port: 0, workers: {workers}, shutdown_grace_s: 5 }}
data_dir: {data_dir}
redis:
  url: "redis://127.0.0.1:{valkey_port}"
  timeout_ms: 500
  partitions: {partitions}
  local_share: {local_share}
database: {{ url: "{database_url}" }}
log: {{ requests: false }}
metering: {{ flush_interval_ms: 20, hold_lease_s: {lease_s} }}
upstreams:
  main:
    url: "http://127.0.0.1:{upstream_port}"
    api_key: secret
    timeouts: {{ connect_s: 2, first_byte_s: 3, between_bytes_s: 2, pool_s: 2 }}
  sandbox: {{ url: sandbox }}
routes:
  - {{ path: /v1/chat/completions, upstream: main, dialect: openai }}
  - {{ path: /*, upstream: sandbox, dialect: plain }}
tiers:
  wide: {{ limits: {{ requests: {{ hour: 1000000 }}, tokens: {{ day: 1000000000 }} }}, when_unavailable: deny }}
  minute:
    limits: {{ requests: {{ minute: 120 }}, tokens: {{ minute: 12000, day: 60000 }} }}
    when_unavailable: deny
  tight: {{ limits: {{ requests: {{ hour: 60 }}, tokens: {{ day: 8000 }} }}, concurrency: 6, when_unavailable: deny }}
  lenient: {{ limits: {{ requests: {{ hour: 80 }}, tokens: {{ day: 20000 }} }}, when_unavailable: allow }}
default_tier: wide
"""
TIERS = ("wide", "minute", "tight", "lenient")


class Tree(Serving):
    """`tollway serve` with clocks of its own, from `program_dir` where a broken copy is to be run."""

    def __init__(self, directory: Path, clocks: Clocks, program_dir: Path) -> None:
        super().__init__(directory)
        self._program_dir = program_dir
        self._environment = os.environ | {
            "TOLLWAY_CHAOS_CLOCK": str(clocks.file),
            "PYTHONPATH": f"{program_dir}:{Path.cwd()}",
        }

    def configure(self, text: str) -> Path:
        """Write gateway.yaml."""
        self._file.write_text(text)
        return self._file

    def launch(self, *more: str) -> "subprocess.Popen[str]":
        """Start the command and wait for nothing."""
        command = [sys.executable, "-m", "tests.chaos.skewed", "serve", "--file", str(self._file), *more]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=self._environment,
            cwd=self._program_dir,  # which comes first on the path of `python -m`
        )

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return int(self.url.rpartition(":")[2])

    def workers(self) -> list[int]:
        """Pids of the living workers."""
        return [pid for name, pid in self.processes().items() if name.startswith("worker")]


@dataclass(slots=True)
class Stage:
    """The parts, running."""

    tree: Tree
    upstream: TrueUpstream
    valkey: ValkeyServer
    postgres: PostgresServer | None
    clocks: Clocks
    links: dict[str, Link]
    """By what lies behind: `gateway`, `upstream`, `valkey`, `database`."""
    ledger: Ledger
    tiers: dict[str, Tier]
    database_url: str
    """The ledger's, past the link."""
    keys: dict[str, str]
    """Accounts, one to a tier and named like it, and their keys."""
    stories: dict[str, list[Story]] = field(default_factory=dict)
    happened: list[str] = field(default_factory=list)
    """What was broken, in order, for the report of a run that fails."""
    flushes_s: list[float] = field(default_factory=list)
    """When Valkey was emptied, on the clock of the stories."""
    partitions: int = PARTITIONS

    def overshoot(self, account: str, limit: Limit) -> int:
        """What the published bound allows beyond a limit: the local share of a tier that goes on without Redis."""
        if self.tiers[account].when_unavailable is not WhenUnavailable.ALLOW:
            return 0
        # A worker that is killed meanwhile begins a new part of the share.
        kills = sum("kill" in text for text in self.happened)
        return math.ceil(LOCAL_SHARE * limit.maximum) * (1 + kills)

    async def left_over(self) -> dict[str, int]:
        """Holds, leases and events on the stream, over all partitions, and bytes in the journals of the disk."""
        return await outside.left_over(self.valkey.url, PARTITIONS) | {
            "journal": sum(outside.journal(self.tree.data_dir).values())
        }

    async def counters(self, account: str) -> dict[str, int]:
        """The account's live state, as `lua/README.md` names its fields; empty where there is none."""
        return await outside.counters(self.valkey.url, PARTITIONS, account)

    async def sums(self, table: str) -> dict[str, list[int]]:
        """[events, requests, input, output, cached, reasoning] by account, as `usage_hourly` or `_daily` rolled up."""
        return await asyncio.to_thread(outside.sums, self.database_url, table)

    async def set_aside(self) -> int:
        """How many payloads the flusher could not read."""
        return await asyncio.to_thread(outside.set_aside, self.database_url)


@contextlib.asynccontextmanager
async def stage(directory: Path, database: str, program_dir: Path) -> AsyncIterator[Stage]:
    """Start every part; leave none running."""
    with contextlib.ExitStack() as servers:
        valkey = servers.enter_context(_valkey())
        postgres = servers.enter_context(_postgres()) if database == "postgresql" else None
        async with contextlib.AsyncExitStack() as stack:
            upstream = await stack.enter_async_context(true_upstream())
            upstream.gate.set()
            clocks = Clocks(directory / "clocks")
            tree = Tree(directory, clocks, program_dir)
            dials: dict[str, Dial] = {
                "upstream": lambda: _dial(upstream.port),
                "valkey": partial(_dial_unix, valkey.url.removeprefix("unix://")),
                "gateway": lambda: _dial(tree.port),
            }
            if postgres is not None:
                path = postgres.url().rpartition("host=")[2] + "/.s.PGSQL.5432"
                dials["database"] = partial(_dial_unix, path)
            links = {name: await stack.enter_async_context(link(dial)) for name, dial in dials.items()}
            settings = load(tree.configure(_settings(tree, links)), {})
            # The driver's own look at the ledger doesn't pass the link.
            deployment = deployment_of(settings)
            ledger_url = deployment.database_url if postgres is None else postgres.url()
            await ensure_schema(ledger_url)
            ledger = Ledger.open(ledger_url)
            stack.push_async_callback(ledger.close)
            tiers = {name: tier_of(name, tier) for name, tier in settings.tiers.items()}
            keys = await _accounts(ledger, deployment.digest_key)
            # In a thread: the links that the tree needs to start are served by this loop.
            stack.push(tree.__exit__)
            await asyncio.to_thread(tree.start)
            yield Stage(tree, upstream, valkey, postgres, clocks, links, ledger, tiers, ledger_url, keys)


def _settings(tree: Tree, links: dict[str, Link]) -> str:
    """gateway.yaml, with every address a link's."""
    database = f"postgresql://postgres@127.0.0.1:{links['database'].port}/postgres" if "database" in links else ""
    return SETTINGS.format(
        workers=WORKERS,
        data_dir=tree.data_dir,
        valkey_port=links["valkey"].port,
        partitions=PARTITIONS,
        local_share=LOCAL_SHARE,
        database_url=database,
        lease_s=LEASE_S,
        upstream_port=links["upstream"].port,
    )


async def _accounts(ledger: Ledger, digest_key: bytes) -> dict[str, str]:
    """An account for each tier, named like it; their keys."""
    keys, now_ms = {}, time.time_ns() // 1_000_000
    for name in TIERS:
        await ledger.create_account(name, name, "", now_ms)
        key_id, keys[name], digest = new_key(digest_key)
        await ledger.create_key(ApiKey(key_id, name, digest, "", now_ms))
    return keys


@contextlib.contextmanager
def _valkey() -> Iterator[ValkeyServer]:
    """What it has answered survives its being killed, whatever the disk does: `everysec` would hold a write back while
    a sync of the file is under way, for up to 2 s.
    """  # noqa: D205
    with tempfile.TemporaryDirectory(prefix="twc") as path:
        server = ValkeyServer(Path(path), "--appendonly", "yes", "--appendfsync", "always")
        with server:
            yield server


@contextlib.contextmanager
def _postgres() -> Iterator[PostgresServer]:
    with (
        tempfile.TemporaryDirectory(prefix="twc") as path,
        PostgresServer(Path(path), "synchronous_commit=on") as server,
    ):
        yield server


async def _dial(port: int) -> Streams:
    return await asyncio.open_connection("127.0.0.1", port)


async def _dial_unix(path: str) -> Streams:
    return await asyncio.open_unix_connection(path)
