"""What Stripe's prices and products give: a tier, and terms beyond it. Pure, of the settings and Stripe's metadata.

A tier is found, in this order: by the price's id in `tiers.*.prices`, by the metadata `tier` of the price, of the
product, else it is `default_tier`. A product that names no tier is a plan by itself: what its metadata leave out has a
default.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.domain.limits import MAXIMUM, Unit, Window
from gateway.domain.periods import Interval
from gateway.domain.terms import Terms, limit_named
from gateway.settings.model import Settings

TOKENS_KEY = "max_tokens_per_month"
DEFAULT_TOKENS = 50_000
DEFAULT_NUMBERS: Mapping[str, float] = {"max_banks": 3, "max_storage_gb": 5}
UNBOUNDED = "unlimited"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LIMIT = re.compile(r"max_(\w+?)_per_(\w+)")
_MONTHLY = Interval(1)
_MOST = 1e15


@dataclass(frozen=True, slots=True)
class Tariff:
    """`prices`: tier by price id. `tiers`: the names of each tier's limits."""

    prices: Mapping[str, str]
    tiers: Mapping[str, frozenset[str]]
    default_tier: str

    def plan(
        self, price_id: str, price: Mapping[str, str], product: Mapping[str, str] | None, interval: Interval
    ) -> tuple[str, Terms]:
        """The tier and terms of a price with its metadata and its product's, None where nobody knows those yet."""
        told = {**(product or {}), **price}
        tier = self.prices.get(price_id) or told.get("tier", "")
        read = read_metadata(told)
        limits, numbers = dict(read.limits), dict(read.numbers)
        if not tier and product is not None:
            limits.setdefault(f"{Unit.TOKENS}/{Window.MONTH}", DEFAULT_TOKENS)
            numbers = {**DEFAULT_NUMBERS, **numbers}
        tier = tier or self.default_tier
        return tier, Terms(self._by_period(limits, tier, interval), numbers=numbers, features=read.features)

    def _by_period(self, limits: dict[str, int | None], tier: str, interval: Interval) -> dict[str, int | None]:
        """A month's limits are the billing period's, where that is a month and the tier doesn't count months."""
        if interval != _MONTHLY:
            return limits
        own = self.tiers.get(tier, frozenset())
        return {
            name if name in own or not name.endswith("/month") else f"{name.partition('/')[0]}/{Window.PERIOD}": most
            for name, most in limits.items()
        }


@dataclass(slots=True)
class Read:
    """Metadata as entitlements, and the names of those that could not be read."""

    limits: dict[str, int | None] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    features: dict[str, bool] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def read_metadata(metadata: Mapping[str, str]) -> Read:
    """`max_<unit>_per_<window>` is a limit, another number a number, true and false a feature; the rest is notes."""
    read = Read()
    for name, text in metadata.items():
        value = text.strip().lower()
        limit = _limit_of(name)
        if limit:
            _read_limit(read, name, limit, value)
        elif value in {"true", "false"} and _NAME.fullmatch(name):
            read.features[name] = value == "true"
        elif (number := _number(value)) is not None and _NAME.fullmatch(name):
            read.numbers[name] = number
        elif name in DEFAULT_NUMBERS:
            read.wrong.append(name)
    return read


def tariff_of(settings: Settings) -> Tariff:
    """As the settings have it."""
    prices = {
        price.stripe_price: name
        for name, tier in settings.tiers.items()
        for price in tier.prices.values()
        if price.stripe_price
    }
    tiers = {
        name: frozenset(f"{unit}/{window}" for unit, windows in tier.limits.items() for window in windows)
        for name, tier in settings.tiers.items()
    }
    return Tariff(prices, tiers, settings.default_tier)


def _limit_of(name: str) -> str:
    found = _LIMIT.fullmatch(name)
    limit = f"{found[1]}/{found[2]}" if found is not None else ""
    return limit if limit_named(limit) is not None else ""


def _read_limit(read: Read, name: str, limit: str, value: str) -> None:
    if value == UNBOUNDED:
        read.limits[limit] = None
    elif re.fullmatch(r"[0-9]{1,16}", value) and int(value) <= MAXIMUM:
        read.limits[limit] = int(value)
    else:
        read.wrong.append(name)


def _number(text: str) -> float | None:
    if not re.fullmatch(r"[0-9]{1,16}(\.[0-9]{1,16})?", text):
        return None
    number = float(text)
    return number if math.isfinite(number) and number <= _MOST else None
