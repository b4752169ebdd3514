"""Gauges: levels that apps report, like connected banks or gigabytes stored. Pure; in thousandths, as integers.

The limit of the gauge `banks` is the number `max_banks` among an account's entitlements; without one it has none. A
level may always fall, also one that stands above its limit since a downgrade; it never rises past it.
"""

from collections.abc import Mapping
from decimal import ROUND_FLOOR, Decimal

import msgspec

LIMITS = "max_"
"""What the name of a gauge's limit begins with."""

NAME = r"^[a-z][a-z0-9_]{0,63}\Z"
MILLI = 1_000
MOST_MILLI = 2**53 - 1


class Gauge(msgspec.Struct, frozen=True):
    """A level, in thousandths."""

    name: str
    value_milli: int


class Change(msgspec.Struct, frozen=True):
    """A change as it is asked: to `value_milli`, or by `delta_milli` where that is None.

    `request_id`, unless it is empty, makes it idempotent within the account; `who` is the key that asks.
    """

    account_id: str
    name: str
    value_milli: int | None
    delta_milli: int
    request_id: str
    who: str
    at_ms: int


class Level(msgspec.Struct, frozen=True):
    """What became of a change: the level as it stands, what it would be, and whether that fits."""

    used_milli: int
    asked_milli: int
    fits: bool


class ChangeRow(msgspec.Struct, frozen=True):
    """One change as it was made."""

    request_id: str
    delta_milli: int
    value_milli: int
    who: str
    at_ms: int


def limit_milli(name: str, numbers: Mapping[str, float]) -> int | None:
    """The limit of a gauge, None where there is none; what is less than a thousandth of it is left out."""
    number = numbers.get(LIMITS + name)
    return None if number is None else int((Decimal(str(number)) * MILLI).to_integral_value(ROUND_FLOOR))


def level(used_milli: int, change: Change, limit: int | None) -> Level:
    """What a change comes to where the level stands at `used_milli`."""
    asked = used_milli + change.delta_milli if change.value_milli is None else change.value_milli
    rises_too_far = limit is not None and asked > limit and asked > used_milli
    return Level(used_milli, asked, fits=0 <= asked <= MOST_MILLI and not rises_too_far)


def in_milli(number: float) -> int | None:
    """A number in thousandths; None for one that is finer than that, or too large."""
    exact = Decimal(str(number)) * MILLI
    return int(exact) if exact == exact.to_integral_value() and abs(exact) <= MOST_MILLI else None


def as_number(milli: int) -> float:
    """A level as people write it: an integer where it is whole."""
    return milli // MILLI if milli % MILLI == 0 else milli / MILLI
