"""The product as a target: `tollway serve` with every duty on, its accounts and keys made by its own command line.

One worker, the lean transport, a Valkey of the bench's own (to pin and measure it apart), SQLite in a fresh data
directory, a log line for each request. The plan of the account that is measured has a limit of each kind, too high to
refuse; the other account's plan is used up by one request.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.ledger.ledger import Ledger
from tests.bench.processes import BenchError, free_port, post
from tests.bench.target import Booked, Candidate, Ground, Target, serve
from tests.bench.valkey import valkey
from tests.bench.workloads import PATH, json_body

NEVER = 10**12
FIRST_BOOKED_S = 10.0
More = Callable[[dict[str, Any]], dict[str, Any]]
"""Changes the settings before the start."""

FAR_S = 4_102_444_800
"""A whole hour that no event reaches: 2100-01-01."""


def start_tollway(ground: Ground, *, workers: int = 1, log: Path | None = None, more: More | None = None) -> Target:
    """Start Valkey, make the accounts and keys, serve, and use up the one account's plan. `log` takes its lines."""
    port, directory = free_port(), ground.directory("tollway")
    redis = ground.stack.enter_context(valkey(ground.directory("tollway-valkey"), ground.cores.others))
    settings = _settings(ground, port, directory / "data", redis.url, workers)
    (directory / "gateway.yaml").write_text(json.dumps(settings if more is None else more(settings)))
    command = _command(ground)
    headers, spent_headers = key_of(ground, "bench"), key_of(ground, "spent")
    pid = serve(ground, "tollway", [*command, "serve"], port, headers, log=log)
    if post(port, PATH, json_body(), spent_headers) != 200 or post(port, PATH, json_body(), spent_headers) != 429:
        raise BenchError("tollway did not refuse the second request of a plan of one")
    books = _Books(f"sqlite+aiosqlite:///{directory / 'data' / 'ledger.db'}")
    books.wait_for_the_first()
    return Target("tollway", port, pid, headers, spent_headers, redis, books, tls=ground.tls is not None)


def key_of(ground: Ground, account: str) -> dict[str, str]:
    """The header of a fresh key of a fresh account, whose tier has its name."""
    command = _command(ground)
    _tollway([*command, "accounts", "create", account, "--tier", account])
    return {"authorization": f"Bearer {_tollway([*command, 'keys', 'create', account]).split()[0]}"}


def _command(ground: Ground) -> list[str | Path]:
    """The command line, on the settings of the gateway that was started on this ground."""
    return [sys.executable, "-m", "gateway", "--file", ground.scratch / "tollway" / "gateway.yaml"]


def _settings(ground: Ground, port: int, data_dir: Path, redis_url: str, workers: int) -> dict[str, Any]:
    # JSON is YAML: the file is one that `tollway check` takes.
    windows = {"hour": NEVER, "day": NEVER, "month": NEVER}
    upstreams = {"mock": _upstream(ground.mock_url)}
    routes = [{"path": "/v1/*", "upstream": "mock", "dialect": "openai"}]
    if ground.tls is not None:
        upstreams["tls"] = {**_upstream(ground.tls.url), "ca_file": str(ground.tls.ca_file)}
        routes.append({"path": "/tls/*", "upstream": "tls", "dialect": "openai"})
    return {
        "listen": {"port": port, "workers": workers},
        "data_dir": str(data_dir),
        "redis": {"url": redis_url, "timeout_ms": 10_000},
        "upstreams": upstreams,
        "routes": routes,
        "tiers": {
            "bench": {"limits": {"requests": {"hour": NEVER}, "tokens": windows}, "concurrency": 100_000},
            "spent": {"limits": {"requests": {"month": 1}}},
        },
        "default_tier": "bench",
    }


def _upstream(url: str) -> dict[str, object]:
    return {"url": url, "api_key": "sk-mock", "max_connections": 4096}


def _tollway(command: list[str | Path]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise BenchError(f"{command[3:]} failed: {done.stderr[-800:]}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class _Books:
    """Reads what the ledger booked for the measured account."""

    url: str

    def __call__(self) -> Booked:
        return asyncio.run(self._read())

    def wait_for_the_first(self) -> None:
        """Wait until the request that showed the gateway to be ready is booked; then nothing is under way."""
        deadline = time.monotonic() + FIRST_BOOKED_S
        while self().requests != 1:
            if time.monotonic() > deadline:
                raise BenchError(f"tollway did not book its first request: {self()}")
            time.sleep(0.05)

    async def _read(self) -> Booked:
        ledger = Ledger.open(self.url)
        try:
            totals = await ledger.totals("bench", 0, FAR_S)
        finally:
            await ledger.close()
        return Booked(totals.requests, totals.input_tokens, totals.output_tokens)


TOLLWAY = Candidate("tollway", "key, atomic limits, usage, ledger, log", lambda: "", start_tollway)
