"""`make scale`: how long import, comparing with Stripe and `explain` take where accounts are many, in what memory.

A real Valkey that knows half of the accounts that are explained, SQLite, the commands as processes of their own, a
Stripe on loopback that answers at once. Each pass must have done what it should: 1 if not.
"""

import argparse
import asyncio
import csv
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from gateway.cli.desk import at_desk
from gateway.console.admin_desk import Desk
from gateway.console.explain import explain
from tests.support.paged_stripe import account_of, paged_stripe
from tests.support.valkey import ValkeyServer

TOKEN = "a-token-of-the-benchmark"
SETTINGS = """
listen: {{ port: 0 }}
data_dir: {folder}/data
redis: {{ url: "{redis}", timeout_ms: 10000 }}
log: {{ requests: false }}
upstreams: {{ sandbox: {{ url: sandbox }} }}
routes: [{{ path: /v1/*, upstream: sandbox, dialect: openai }}]
tiers:
  free: {{ limits: {{ requests: {{ hour: 50 }}, tokens: {{ day: 1000, month: 20000 }} }}, concurrency: 5 }}
  pro:
    limits: {{ requests: {{ minute: 60, hour: 500 }}, tokens: {{ day: 50000, period: 200000, lifetime: 90000000 }} }}
    prices: {{ month: {{ cents: 900, stripe_price: price_pro }} }}
default_tier: free
stripe: {{ api_key: sk_test_of_the_benchmark, api_base: "{stripe}" }}
"""
PROGRAM = """
import sys
from pathlib import Path
from gateway.__main__ import main
status = main(sys.argv[1:])
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
sys.exit(status)
"""


def main() -> int:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--asked", type=int, default=1_000, help="how many answers of explain are timed")
    parser.add_argument("--stripe", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stripe:
        asyncio.run(_stripe(asked.stripe))
        return 0
    with (
        tempfile.TemporaryDirectory(prefix="tws") as folder,
        ValkeyServer(Path(folder), "--appendonly", "yes") as redis,
        _stripe_process(asked.accounts) as stripe_url,
    ):
        home = Path(folder)
        (home / "gateway.yaml").write_text(SETTINGS.format(folder=folder, redis=redis.url, stripe=stripe_url))
        os.chdir(home)
        return 0 if _passes(asked.accounts) and _explained(asked.accounts, asked.asked) else 1


def _passes(accounts: int) -> bool:
    """The import, a pass in which all is new, one in which nothing is; whether each did what it should."""
    with Path("accounts.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("account", "name", "account_tier", "tokens_used"))
        rows.writerows((account_of(one), f"Account {one}", "free", one % 900) for one in range(accounts))
    count = f"{accounts:,}"
    mended = "0 of no known account"
    return all(
        [
            _pass("import", ("import", "accounts.csv"), f"{count} accounts made"),
            _pass("sync, all new", ("stripe", "sync"), f"{count} subscriptions, {count} differed, {count} mended"),
            _pass("sync, all known", ("stripe", "sync"), f"{count} subscriptions, 0 differed, 0 mended, {mended}"),
        ]
    )


def _pass(name: str, words: tuple[str, ...], says: str) -> bool:
    begun_s = time.monotonic()
    ran = subprocess.run([sys.executable, "-c", PROGRAM, *words], check=False, capture_output=True, text=True)
    took_s = time.monotonic() - begun_s
    *lines, peak_mib = ran.stdout.splitlines() or [""]
    done = ran.returncode == 0 and says in "\n".join(lines[-3:])
    mark = "" if done else f"  ! {ran.stderr[-500:]} {lines[-1:]}"
    print(f"{name:<24}{took_s:>9.1f} s{peak_mib:>9} MiB at most{mark}", flush=True)
    return done


def _explained(accounts: int, count: int) -> bool:
    """The answer by HTTP, by the code that the command runs, and what a whole command takes."""
    draw = random.Random(7)
    ids = [account_of(draw.randrange(accounts)) for _ in range(count)]
    with (
        _gateway() as url,
        httpx.Client(base_url=url, headers={"authorization": f"Bearer {TOKEN}"}, trust_env=False) as http,
    ):

        def ask(account_id: str) -> bool:
            answer = http.get(f"/_tollway/admin/accounts/{account_id}/explain")
            return answer.status_code == 200 and answer.json()["tier"] == "pro"

        _with_counters(http, ids[: count // 2])
        good = _timed("explain by HTTP", ask, ids)
    good &= asyncio.run(_at_desk(ids))
    whole = ids[: max(1, min(20, count // 20))]
    good &= _timed("the command, whole", lambda one: _ran("accounts", "explain", one), whole)
    return good & _timed("a command's start", lambda _: _ran("tiers"), whole)


def _ran(*words: str) -> bool:
    command = [sys.executable, "-m", "gateway", *words]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _with_counters(http: httpx.Client, ids: list[str]) -> None:
    """Let them have asked something, so that there are live counters."""
    for account_id in dict.fromkeys(ids):
        key = http.post(f"/_tollway/admin/accounts/{account_id}/keys", json={"name": "bench"}).json()["key"]
        body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
        bearer = {"authorization": f"Bearer {key}"}
        http.post("/v1/chat/completions", json=body, headers=bearer).raise_for_status()


async def _at_desk(ids: list[str]) -> bool:
    """As `tollway accounts explain` does once it has started, over a new connection to Redis each time."""
    async with at_desk(Path("gateway.yaml")) as desk:
        took_s = [await _one(desk, account_id) for account_id in ids]
    return _told("explain in the command", took_s, done=True)


async def _one(desk: Desk, account_id: str) -> float:
    begun_s = time.perf_counter()
    await explain(desk, account_id)
    return time.perf_counter() - begun_s


def _timed(name: str, ask: Callable[[str], bool], ids: list[str]) -> bool:
    took_s, done = [], True
    for account_id in ids:
        begun_s = time.perf_counter()
        done &= ask(account_id)
        took_s.append(time.perf_counter() - begun_s)
    return _told(name, took_s, done=done)


def _told(name: str, took_s: list[float], *, done: bool) -> bool:
    p50, p99 = statistics.median(took_s), sorted(took_s)[len(took_s) * 99 // 100]
    mark = "" if done else "  ! not every answer was right"
    print(f"{name:<24}{p50 * 1000:>9.1f} ms p50{p99 * 1000:>9.1f} ms p99{mark}", flush=True)
    return done


@contextmanager
def _gateway() -> Iterator[str]:
    """`tollway serve`, with the admin API; its URL."""
    environment = os.environ | {"TOLLWAY_ADMIN_TOKEN": TOKEN}
    command = [sys.executable, "-m", "gateway", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            found = next(filter(None, (re.search(r"ready on (http://\S+)", line) for line in process.stdout)))
            yield found[1]
        finally:
            process.terminate()


@contextmanager
def _stripe_process(count: int) -> Iterator[str]:
    """A Stripe with so many subscriptions; its URL."""
    command = [sys.executable, "-m", "tests.bench.scale", "--stripe", str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


async def _stripe(count: int) -> None:
    async with paged_stripe(count) as stripe:
        print(stripe.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    sys.exit(main())
