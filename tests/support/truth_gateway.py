"""`tollway serve` with several workers in front of a test's upstream, and what is read out of it: ledger and Redis."""

import time
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from gateway.domain.accounts import ApiKey
from gateway.domain.usage import UsageEvent
from gateway.identity.keys import new_key
from gateway.ledger.ledger import Ledger
from gateway.quota.hold import Hold, read_hold
from gateway.settings.deployment import deployment_of
from gateway.settings.load import load
from tests.support import outside
from tests.support.ledgers import rows_of
from tests.support.serving import Serving

PARTITIONS = 8
SETTINGS = """
listen: {{ port: 0, shutdown_grace_s: 20 }}
data_dir: {data_dir}
redis: {{ timeout_ms: 5000, partitions: {partitions} }}
log: {{ requests: false }}
metering: {{ flush_interval_ms: 20 }}
upstreams:
  main: {{ url: "http://127.0.0.1:{upstream_port}", api_key: secret }}
  sandbox: {{ url: sandbox }}
routes:
  - {{ path: /v1/chat/completions, upstream: main, dialect: openai }}
  - {{ path: /*, upstream: sandbox, dialect: plain }}
tiers:
  wide: {{ limits: {{ requests: {{ hour: 1000000 }}, tokens: {{ day: 1000000000 }} }} }}
  counted: {{ limits: {{ requests: {{ hour: 40 }}, tokens: {{ day: 1000000000 }} }} }}
  metered: {{ limits: {{ requests: {{ hour: 1000000 }}, tokens: {{ day: 4000 }} }} }}
  narrow: {{ limits: {{ requests: {{ hour: 1000000 }}, tokens: {{ day: 1000000000 }} }}, concurrency: 9 }}
  tight: {{ limits: {{ requests: {{ hour: 30 }}, tokens: {{ day: 3000, month: 5000 }} }}, concurrency: 6 }}
default_tier: wide
"""


class Tollway(Serving):
    """The process tree on `directory`, alive inside the `with` block."""

    def __init__(
        self, directory: Path, upstream_port: int, *, workers: int = 4, settings: str = SETTINGS, database_url: str = ""
    ) -> None:
        super().__init__(directory, "--workers", str(workers))
        if database_url:
            settings += f'database: {{{{ url: "{database_url}" }}}}\n'
        text = settings.format(data_dir=self.data_dir, upstream_port=upstream_port, partitions=PARTITIONS)
        self._file.write_text(text)
        self._deployment = deployment_of(load(self._file, {}))

    @property
    def file(self) -> Path:
        """Its gateway.yaml."""
        return self._file

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return int(self.url.rpartition(":")[2])

    async def accounts(self, tiers: dict[str, str]) -> dict[str, str]:
        """Make accounts, account id → tier; their keys, by account id."""
        ledger, keys, now_ms = Ledger.open(self._deployment.database_url), {}, time.time_ns() // 1_000_000
        try:
            for account, tier in tiers.items():
                await ledger.create_account(account, tier, "", now_ms)
                key_id, keys[account], digest = new_key(self._deployment.digest_key)
                await ledger.create_key(ApiKey(key_id, account, digest, "", now_ms))
        finally:
            await ledger.close()
        return keys

    def events(self, accounts: set[str]) -> list[UsageEvent]:
        """The ledger's events of these accounts."""
        rows = rows_of(self._deployment.database_url, "SELECT * FROM events")
        return [msgspec.convert(row, UsageEvent, strict=False) for row in rows if row[1] in accounts]

    def sums(self, table: str, accounts: set[str]) -> dict[str, list[int]]:
        """[events, requests, input, output, cached, reasoning] by account, as `usage_hourly` or `_daily` rolled up."""
        found = outside.sums(self._deployment.database_url, table)
        return {account: row for account, row in found.items() if account in accounts}

    def set_aside(self) -> int:
        """How many payloads the flusher could not read."""
        return outside.set_aside(self._deployment.database_url)

    @property
    def redis_url(self) -> str:
        """Its own Valkey's."""
        return self._deployment.redis_url

    @property
    def database_url(self) -> str:
        """Its ledger's."""
        return self._deployment.database_url

    async def left_over(self) -> dict[str, int]:
        """Holds, leases and events on the stream, over all partitions."""
        return await outside.left_over(self._deployment.redis_url, PARTITIONS)

    async def holds(self) -> list[Hold]:
        """What is held, over all partitions."""
        async with Redis.from_url(self._deployment.redis_url) as redis:
            held: list[Any] = [await redis.hvals(f"tw:{{{partition}}}:holds") for partition in range(PARTITIONS)]
            return [read_hold(packed) for values in held for packed in values]

    async def counters(self, account: str) -> dict[str, int]:
        """The account's live state: `n` running, and of each limit `s:<name>` window start and `u:<name>` used."""
        return await outside.counters(self._deployment.redis_url, PARTITIONS, account)
