"""A console over a real ledger, a real directory and the in-process limiter, at a clock that stands still."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from gateway.console.admin_desk import Desk
from gateway.console.app import Services, console
from gateway.console.services import Probe
from gateway.domain.accounts import ApiKey
from gateway.domain.limits import Remedy, Unit, Window
from gateway.identity.directory import Directory
from gateway.identity.guesses import Guesses
from gateway.identity.keys import new_key
from gateway.ledger.ledger import Ledger
from gateway.ledger.outbox import apply_outbox
from gateway.quota.memory_limiter import MemoryLimiter
from gateway.settings.model import Route, Settings
from gateway.settings.plans import BillingInterval, LimitSettings, Price, TierSettings
from gateway.settings.upstreams import Upstream
from gateway.telemetry.exposition import render
from gateway.telemetry.metrics import Metrics
from tests.support.ledgers import NOON_MS

NOW_MS = NOON_MS + 30 * 60_000
"""2026-11-21 12:30 UTC, a Saturday."""

DIGEST_KEY = b"d" * 32

_PAID: dict[Unit, dict[Window, int | LimitSettings]] = {
    Unit.INPUT_TOKENS: {Window.MONTH: LimitSettings(maximum=0, remedy=Remedy.PAY)}
}
SETTINGS = Settings(
    upstreams={"main": Upstream(url="http://127.0.0.1:1")},
    routes=(Route(path="/v1/*", upstream="main", dialect="openai"),),
    tiers={
        "free": TierSettings(
            limits={Unit.REQUESTS: {Window.HOUR: 50}, Unit.TOKENS: {Window.DAY: 1_000}, **_PAID},
            concurrency=3,
        ),
        "premium": TierSettings(limits={Unit.REQUESTS: {Window.HOUR: 500}}),
        "pro": TierSettings(
            limits={Unit.TOKENS: {Window.PERIOD: 50_000, Window.LIFETIME: 900_000}},
            numbers={"max_banks": 3, "max_storage_gb": 5.5},
            features={"exports": True},
            prices={BillingInterval.MONTH: Price(cents=1_900, stripe_price="price_1")},
        ),
    },
    default_tier="free",
)


async def _fine() -> None:
    return None


async def _tell(ledger: Ledger, limiter: MemoryLimiter) -> None:
    await apply_outbox(ledger, limiter.bump)


@dataclass
class Bench:
    """The parts behind a console, and a client of it."""

    ledger: Ledger
    limiter: MemoryLimiter
    directory: Directory
    client: httpx.AsyncClient
    metrics: Metrics = field(default_factory=Metrics)

    async def account(self, account_id: str, tier: str = "free") -> str:
        """Make an account; return the text of a key of it."""
        await self.ledger.create_account(account_id, tier, account_id, NOW_MS)
        return await self.key(account_id)

    async def key(self, account_id: str) -> str:
        """Make one more key of an account; return its text."""
        key_id, text, digest = new_key(DIGEST_KEY)
        await self.ledger.create_key(ApiKey(key_id, account_id, digest, "test", NOW_MS))
        return text

    async def get(self, path: str, key: str | None = None, **headers: str) -> httpx.Response:
        """GET a path under the prefix."""
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        return await self.client.get(f"/_tollway{path}", headers=headers)


@asynccontextmanager
async def console_over(
    ledger: Ledger,
    *,
    peek: Callable[[str], Awaitable[None]] | None = None,
    probes: Mapping[str, Probe] | None = None,
    stopping: bool = False,
    admin_token: str = "",
    client_host: str = "203.0.113.9",
) -> AsyncIterator[Bench]:
    """A console and its parts. `peek` stands in for the limiter's own; `client_host` is where requests come from."""
    limiter = MemoryLimiter(now_us=lambda: NOW_MS * 1000)
    directory = Directory(ledger, DIGEST_KEY, wall_clock=lambda: NOW_MS / 1000)
    metrics = Metrics()
    desk = Desk(
        ledger=ledger,
        settings=lambda: SETTINGS,
        now_ms=lambda: NOW_MS,
        peek=peek or limiter.peek,
        digest_key=DIGEST_KEY,
        metrics_dir=Path("/nonexistent"),
        tell_gateways=lambda: _tell(ledger, limiter),
    )
    services = Services(
        directory=directory,
        guesses=Guesses(directory, 60, 60),
        ledger=ledger,
        peek=limiter.peek,
        entitlements=desk.entitlements,
        now_ms=lambda: NOW_MS,
        metrics=lambda: render(Path("/nonexistent"), metrics),
        probes={"limiter": _fine, "ledger": ledger.ping} if probes is None else probes,
        admin_token=admin_token,
        stopping=lambda: stopping,
        desk=desk,
        admin_refused=metrics.count_admin_refused,
    )
    app = console(services if peek is None else replace(services, peek=peek))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(client_host, 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
        yield Bench(ledger, limiter, directory, client, metrics)


def unknown_key() -> str:
    """A well-formed key that nobody made."""
    return f"tw_{secrets.token_hex(6)}_{secrets.token_hex(20)}"
