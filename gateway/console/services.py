"""What the console needs of the rest of the gateway."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from gateway.billing.webhook import Webhook
from gateway.console.admin_desk import Desk
from gateway.domain.entitlements import Entitlements, Standing
from gateway.identity.directory import Directory
from gateway.identity.guesses import Guesses
from gateway.ledger.ledger import Ledger

LiveState = tuple[int, int, dict[str, tuple[int, int]]]
"""As `Limiter.peek` tells it: version, running count and, by limit name, (window start in Unix seconds, used)."""

Probe = Callable[[], Awaitable[object]]
"""Returns once its part answers, raises where it can't."""


def _never() -> bool:
    return False


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """`now_ms` is the limiter's clock, Unix milliseconds; `metrics` renders a scrape.

    `entitlements` are an account's at a Unix second, by the tiers and rules in force now.
    `prefix` begins with a slash and doesn't end in one. `admin_token` empty: nobody but this machine is an operator.
    `stopping` tells that the gateway takes no new requests. `desk` is what the admin API works with; `admin_refused` is
    called for each request to it that is refused. `webhook` takes in what Stripe sends; None: it is off.
    """

    directory: Directory
    guesses: Guesses
    ledger: Ledger
    peek: Callable[[str], Awaitable[LiveState | None]]
    entitlements: Callable[[Standing, int], Entitlements]
    now_ms: Callable[[], int]
    metrics: Callable[[], bytes]
    probes: Mapping[str, Probe]
    desk: Desk
    prefix: str = "/_tollway"
    admin_token: str = ""
    webhook: Webhook | None = None
    stopping: Callable[[], bool] = _never
    admin_refused: Callable[[], None] = _nothing
