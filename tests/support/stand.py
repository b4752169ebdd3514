"""A whole gateway inside the test's own loop: real Valkey, real SQLite, real sockets, and an upstream that the test
scripts (`tests/support/odd_peer.py`) or names. Everything between is the product's own.
"""  # noqa: D205

import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

import httpx
import uvicorn

from gateway.app import Gateway
from gateway.cli.worker import server_config
from gateway.domain.accounts import ApiKey
from gateway.domain.usage import UsageEvent
from gateway.identity.keys import new_key
from gateway.ledger.ledger import Ledger
from gateway.ledger.schema import ensure_schema
from gateway.settings.deployment import Deployment, deployment_of
from gateway.settings.load import load
from tests.support.until import until

SETTINGS = """
listen: {{ port: 0, shutdown_grace_s: 5, max_body_mb: 1 }}
data_dir: {data_dir}
redis: {{ url: "{redis_url}", namespace: tw }}
log: {{ requests: false }}
metering: {{ flush_interval_ms: 20 }}
upstreams:
  main:
    url: http://127.0.0.1:{upstream_port}
    api_key: upstream-secret
    timeouts: {{ connect_s: 20, first_byte_s: 20, between_bytes_s: 20 }}
  open: {{ url: "http://127.0.0.1:{upstream_port}", auth: none }}
routes:
  - {{ path: /v1/chat/completions, methods: [POST], upstream: main, dialect: openai, default_max_tokens: 100 }}
  - {{ path: /v1/*, upstream: main, dialect: plain }}
  - {{ path: /open/*, upstream: open, dialect: plain }}
tiers:
{tiers}
default_tier: free
"""

TIERS = """
  free: {limits: {requests: {hour: 1000}, tokens: {day: 100000, month: 1000000}}, concurrency: 100}
  tiny: {limits: {requests: {hour: 2}, tokens: {day: 1000}}, concurrency: 1}
"""

CHAT = "/v1/chat/completions"
REDIS_TIMEOUT_MS = 3000
"""Where the test's settings say nothing of it: a Redis that is only held up on a busy machine isn't away."""


class Addressed(Protocol):
    """A server, a Cluster, or what Sentinel watches."""

    @property
    def url(self) -> str:
        """Its Redis URL."""
        ...


class Stand:
    """A running gateway. `client` speaks to it; `keys` by account id."""

    def __init__(self, deployment: Deployment, ledger: Ledger, gateway: Gateway, port: int) -> None:
        self.deployment = deployment
        self.ledger = ledger
        self.gateway = gateway
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.AsyncClient(base_url=self.url, timeout=20, trust_env=False)

    async def account(self, account_id: str = "acme", tier: str = "free") -> str:
        """Make an account; the text of its key."""
        await self.ledger.create_account(account_id, tier, "", now_ms())
        return await self.key(account_id)

    async def key(self, account_id: str) -> str:
        """Make another key of an account; its text."""
        key_id, text, digest = new_key(self.deployment.digest_key)
        await self.ledger.create_key(ApiKey(key_id, account_id, digest, "", now_ms()))
        return text

    async def event(self, request_id: str) -> UsageEvent:
        """The settled event of a request, once the flusher has brought it into the ledger."""

        async def there() -> bool:
            return await self.ledger.event(request_id) is not None

        await until(there)
        event = await self.ledger.event(request_id)
        assert event is not None
        return event


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


@contextlib.asynccontextmanager
async def stand(
    directory: Path, valkey: Addressed, upstream_port: int, *, tiers: str = TIERS, settings: str = SETTINGS
) -> AsyncIterator[Stand]:
    """Start a gateway in front of what listens on `upstream_port`; stop it gracefully at the end."""
    file = directory / "gateway.yaml"
    text = settings.format(
        data_dir=directory / "data", redis_url=valkey.url, upstream_port=upstream_port, tiers=tiers.strip("\n")
    )
    if "timeout_ms" not in text:
        text = text.replace("namespace: tw", f"namespace: tw, timeout_ms: {REDIS_TIMEOUT_MS}")
    file.write_text(text)
    loaded = load(file, {})
    deployment = deployment_of(loaded)
    await ensure_schema(deployment.database_url)
    ledger = Ledger.open(deployment.database_url)
    gateway = Gateway(loaded, deployment)
    # A disk that takes a second for each commit delays an account's rebuilding, and refuses nobody.
    with patch.multiple("gateway.edge.hydration", PATIENCE_S=20.0, LONGEST_S=40.0):
        await gateway.start()
        server = uvicorn.Server(server_config(gateway, loaded.listen))
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup([listening])
        here = Stand(deployment, ledger, gateway, listening.getsockname()[1])
        try:
            yield here
        finally:
            await here.client.aclose()
            await server.shutdown([listening])
            await gateway.stop()
            await ledger.close()
