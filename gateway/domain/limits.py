"""What a limit is: a number of a unit in a window.

Owns the vocabulary that `gateway.yaml`, the Lua scripts, headers and docs share. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from zoneinfo import ZoneInfo

from gateway.domain.models import ANY_MODEL, UNCAPPED, Caps, ModelRules
from gateway.domain.periods import Period
from gateway.domain.schedules import Schedule

MAXIMUM = 2**53 - 1
"""Largest count a limit may hold: the last integer that Lua's doubles keep exact."""


SINCE = "@"
"""In a counter's name, between the limit's name and the start of its window; see `windows.span`."""


OWNER = "#"
"""In a limit's name, between the limit and the API keys that it binds alone: `tokens/day#abc`."""

SLOTS = f"concurrency{OWNER}"
"""What the line begins with that counts the requests of such keys under way. It is held, and charged for nothing."""


class Unit(StrEnum):
    """What is counted. Reasoning tokens are output; cached input is input."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


class Window(StrEnum):
    """Over which span it is counted: of the calendar, in the tier's time zone, or of the account's subscription."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    PERIOD = "period"
    """The subscription's billing period; the calendar month for who has none."""
    LIFETIME = "lifetime"


class Remedy(StrEnum):
    """What helps a caller who is refused: to wait for the window's end, or to pay for more."""

    WAIT = "wait"
    PAY = "pay"


class OnExhausted(StrEnum):
    """What becomes of a stream that has used up what it holds, where the limits have no room for more."""

    FINISH = "finish"
    """It ends by itself; what it runs past a limit is owed inside the window."""
    STOP = "stop"
    """It is ended there, validly, as one that ran into its maximum."""


class OnDisconnect(StrEnum):
    """What becomes of the upstream's answer once the client has left."""

    CANCEL = "cancel"
    """The upstream is let go; what was seen is charged."""
    DRAIN = "drain"
    """It is read to its end, so that what the upstream counted is charged."""


class WhenUnavailable(StrEnum):
    """What becomes of a tier's requests while limits can't be checked: each worker admits its share, or 503."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `maximum` of `unit` in each `window`.

    `maximum` runs from 0 (nothing allowed) to `MAXIMUM`. `owner` is the counter of the API keys that it binds alone;
    empty for a limit of the account.
    """

    unit: Unit
    window: Window
    maximum: int
    remedy: Remedy = Remedy.WAIT
    owner: str = ""

    @property
    def name(self) -> str:
        """The limit's name within its tier, as it stands in headers, counters and logs."""
        name = f"{self.unit}/{self.window}"
        return f"{name}{OWNER}{self.owner}" if self.owner else name


UTC = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Tier:
    """A named set of limits, and what else an account on it may have.

    `concurrency` bounds the account's requests under way at once; None leaves them unbounded. `numbers` (`max_banks`)
    and `features` are told to apps, which act on them. `period` is the billing period of the one account that this tier
    was made out for; a tier as it stands in `gateway.yaml` has none. `bandwidth_bit_s` bounds all
    of the account's answers together, 0 not at all.
    """

    name: str
    limits: tuple[Limit, ...]
    concurrency: int | None = None
    time_zone: ZoneInfo = UTC
    numbers: Mapping[str, float] = field(default_factory=dict)
    features: Mapping[str, bool] = field(default_factory=dict)
    period: Period | None = None
    slots: tuple[str, int] | None = None
    """Of the one API key that this tier was made out for: the counter of its running requests, and their maximum."""
    on_exhausted: OnExhausted = OnExhausted.FINISH
    on_disconnect: OnDisconnect = OnDisconnect.CANCEL
    when_unavailable: WhenUnavailable = WhenUnavailable.DENY
    bandwidth_bit_s: float = 0
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    models: ModelRules = ANY_MODEL
    caps: Caps = UNCAPPED
