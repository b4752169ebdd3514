"""Billing periods at the dates people argue about, each worked out by hand."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from gateway.domain.limits import Limit, Tier, Unit, Window
from gateway.domain.periods import Interval, period_bounds, period_of
from gateway.domain.windows import FOREVER_S, span

MONTH, YEAR, WEEK = Interval(), Interval(months=12), Interval(days=7)


def at(text: str) -> int:
    """Unix seconds of a moment."""
    return int(datetime.fromisoformat(text).timestamp())


def bounds(begin: str, end: str | None, interval: Interval, now: str, zone: str = "UTC", anchor: str = "") -> str:
    """The period that holds `now`, as text."""
    ends_s, anchor_s = (at(text) if text else None for text in (end, anchor))
    period = period_of(at(begin), ends_s, interval, anchor_s)
    assert period is not None
    edges = period_bounds(period, at(now), ZoneInfo(zone))
    return " ".join(datetime.fromtimestamp(edge, UTC).strftime("%Y-%m-%dT%H:%M") for edge in edges)


@pytest.mark.parametrize(
    ("now", "window"),
    [
        ("2026-02-28T09:59:59Z", "2026-01-31T10:00 2026-02-28T10:00"),
        ("2026-02-28T10:00:00Z", "2026-02-28T10:00 2026-03-31T10:00"),
        ("2026-04-30T10:00:00Z", "2026-04-30T10:00 2026-05-31T10:00"),
        ("2028-02-29T10:00:00Z", "2028-02-29T10:00 2028-03-31T10:00"),
        ("2026-01-30T10:00:00Z", "2025-12-31T10:00 2026-01-31T10:00"),
    ],
)
def test_months_end_right(now: str, window: str) -> None:
    """A1: a subscription of the 31st of January renews on the 28th of February and the 31st of March."""
    assert bounds("2026-01-31T10:00:00Z", None, MONTH, now) == window


def test_a_short_month_does_not_shift_the_anchor() -> None:
    """A1: told of the period from the 28th of February alone, with its anchor, the next ends on the 31st of March."""
    told = ("2026-02-28T10:00:00Z", "2026-03-31T10:00:00Z", MONTH)

    assert bounds(*told, "2026-04-01T00:00:00Z", anchor="2026-01-31T10:00:00Z") == "2026-03-31T10:00 2026-04-30T10:00"


def test_a_known_period_is_taken_as_it_is() -> None:
    """A1: a trial of nine days that is followed by months: the provider's edges count, and months follow the last."""
    trial = ("2026-03-01T08:00:00Z", "2026-03-10T08:00:00Z", MONTH)

    assert bounds(*trial, "2026-03-05T00:00:00Z") == "2026-03-01T08:00 2026-03-10T08:00"
    assert bounds(*trial, "2026-03-10T08:00:00Z") == "2026-03-10T08:00 2026-04-10T08:00"


def test_years_and_weeks() -> None:
    """A1: a year from the 29th of February ends on the 28th; weeks are seven days."""
    assert bounds("2024-02-29T00:00:00Z", None, YEAR, "2025-06-01T00:00:00Z") == "2025-02-28T00:00 2026-02-28T00:00"
    assert bounds("2026-03-04T12:00:00Z", None, WEEK, "2026-03-20T00:00:00Z") == "2026-03-18T12:00 2026-03-25T12:00"


def test_local_time_keeps_its_hour_over_a_clock_change() -> None:
    """A1: who renews at 9 in Berlin renews at 9 in Berlin in summer as well."""
    told = ("2026-03-15T08:00:00Z", "2026-04-15T07:00:00Z", MONTH)

    assert bounds(*told, "2026-04-20T00:00:00Z", "Europe/Berlin") == "2026-04-15T07:00 2026-05-15T07:00"
    assert bounds(*told, "2026-11-20T00:00:00Z", "Europe/Berlin") == "2026-11-15T08:00 2026-12-15T08:00"


def test_nothing_known_is_no_period() -> None:
    """A1: a subscription without dates falls back to the calendar month instead of failing its account's requests."""
    assert period_of(None, None, MONTH, None) is None
    assert period_of(100, 100, MONTH, None) is None
    limit = Limit(Unit.TOKENS, Window.PERIOD, 5)

    assert span(Tier("t", (limit,)), limit, at("2026-03-15T00:00:00Z")) == (
        "tokens/period",
        at("2026-03-01T00:00:00Z"),
        at("2026-04-01T00:00:00Z"),
    )


def test_a_lifetime_never_ends() -> None:
    """A1: a lifetime limit holds everything an account ever used."""
    limit = Limit(Unit.TOKENS, Window.LIFETIME, 5)

    assert span(Tier("t", (limit,)), limit, at("2026-03-15T00:00:00Z")) == ("tokens/lifetime", 0, FOREVER_S)
