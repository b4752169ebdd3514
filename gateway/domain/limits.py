"""What a limit is: a number of a unit in a window.

Owns the vocabulary that `gateway.yaml`, the Lua scripts, headers and docs share. Pure.
"""

from dataclasses import dataclass
from enum import StrEnum
from zoneinfo import ZoneInfo

MAXIMUM = 2**53 - 1
"""Largest count a limit may hold: the last integer that Lua's doubles keep exact."""


class Unit(StrEnum):
    """What is counted. Reasoning tokens are output; cached input is input."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


class Window(StrEnum):
    """Over which calendar span it is counted, in the tier's time zone."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Remedy(StrEnum):
    """What helps a caller who is refused: to wait for the window's end, or to pay for more."""

    WAIT = "wait"
    PAY = "pay"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `maximum` of `unit` in each `window`.

    `maximum` runs from 0 (nothing allowed) to `MAXIMUM`.
    """

    unit: Unit
    window: Window
    maximum: int
    remedy: Remedy = Remedy.WAIT

    @property
    def name(self) -> str:
        """The limit's name within its tier, as it stands in headers, counters and logs."""
        return f"{self.unit}/{self.window}"


UTC = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Tier:
    """A named set of limits.

    `concurrency` bounds the account's requests under way at once; None leaves them unbounded.
    """

    name: str
    limits: tuple[Limit, ...]
    concurrency: int | None = None
    time_zone: ZoneInfo = UTC
