"""What administration works with, at the command line and over HTTP alike.

Each function of `admin_accounts.py`, `admin_plans.py` and `explain.py` takes a desk, what is asked as a type of
`admin_bodies.py`, and who asks; it answers with a type of `admin_answers.py`, or raises a Fault that says what is
wrong. A change is in the ledger, with its audit row, when the function returns; gateways are told at once where the
limiter answers, else by the outbox within a second of its return.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.console.limit_use import Counters
from gateway.domain.entitlements import Entitlements, Standing, entitlements
from gateway.domain.faults import INVALID_BODY, Fault
from gateway.ledger.ledger import Ledger
from gateway.settings.model import Settings
from gateway.settings.tiers import rules_of, tiers_of

Peek = Callable[[str], Awaitable[tuple[int, int, Counters] | None]]
"""An account's live state as `Limiter.peek` tells it; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """`settings` are those in force now, `now_ms` is the limiter's clock; `tell_gateways` empties the outbox."""

    ledger: Ledger
    settings: Callable[[], Settings]
    now_ms: Callable[[], int]
    peek: Peek
    digest_key: bytes
    metrics_dir: Path
    tell_gateways: Callable[[], Awaitable[None]]

    @property
    def now_s(self) -> int:
        """Unix seconds."""
        return self.now_ms() // 1000

    def known_tier(self, name: str | None) -> str:
        """The name, or the default tier's for None. Raises Fault(INVALID_BODY) with the tiers that there are."""
        settings = self.settings()
        name = settings.default_tier if name is None else name
        if name not in settings.tiers:
            text = f"`tier`: there is no tier `{name}`; there are: {', '.join(settings.tiers)}"
            raise Fault(INVALID_BODY, public=text)
        return name

    def entitlements(self, standing: Standing, now_s: int) -> Entitlements:
        """What the account may do, by the settings in force."""
        settings = self.settings()
        return entitlements(standing, now_s, tiers_of(settings), rules_of(settings))
