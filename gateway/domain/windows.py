"""Windows: which span a moment belongs to, by the calendar or by a billing period. Pure arithmetic.

A window resets because its start changes; nothing has to run for it.
"""

from datetime import UTC, datetime, timedelta
from typing import assert_never
from zoneinfo import ZoneInfo

from gateway.domain.limits import SINCE, Limit, Tier, Window
from gateway.domain.periods import period_bounds

FOREVER_S = 253_370_764_800
"""Where a lifetime ends: the year 9999, the last that dates can be written in."""


def span(tier: Tier, limit: Limit, now_s: int) -> tuple[str, int, int]:
    """The counter of a limit at `now_s`, and the start and end of its window (Unix seconds, half-open).

    A billing period's counter is named by its start as well: where a period moves, back or forth, the counter is
    another, which the limiter has to have from the ledger; so that it always holds what was used since its start.
    """
    if limit.window is Window.PERIOD and tier.period is not None:
        start_s, end_s = period_bounds(tier.period, now_s, tier.time_zone)
        return f"{limit.name}{SINCE}{start_s}", start_s, end_s
    return limit.name, *bounds(limit.window, now_s, tier.time_zone)


def bounds(window: Window, now_s: int, time_zone: ZoneInfo) -> tuple[int, int]:
    """Start (inclusive) and end (exclusive), as Unix seconds, of the window that holds `now_s`.

    Weeks begin on Monday (ISO 8601). A day, week or month begins and ends at local midnight, so that one with a
    clock change in it is an hour shorter or longer; hours and minutes are spans of UTC. A billing period that nobody
    knows is the month.
    """
    match window:
        case Window.MINUTE:
            return _span(now_s, 60)
        case Window.HOUR:
            return _span(now_s, 3600)
        case Window.LIFETIME:
            return 0, FOREVER_S
        case Window.DAY | Window.WEEK | Window.MONTH | Window.PERIOD:
            if window is Window.DAY and time_zone.key == "UTC":
                return _span(now_s, 86400)
            return _calendar(window, now_s, time_zone)
        case _:
            assert_never(window)


def _span(now_s: int, length_s: int) -> tuple[int, int]:
    start_s = now_s - now_s % length_s
    return start_s, start_s + length_s


def _calendar(window: Window, now_s: int, time_zone: ZoneInfo) -> tuple[int, int]:
    today = datetime.fromtimestamp(now_s, UTC).astimezone(time_zone).date()
    if window is Window.DAY:
        first, after = today, today + timedelta(days=1)
    elif window is Window.WEEK:
        first = today - timedelta(days=today.weekday())
        after = first + timedelta(days=7)
    else:
        first = today.replace(day=1)
        after = (first + timedelta(days=31)).replace(day=1)
    return tuple(  # type: ignore[return-value]  # two dates in, two moments out
        int(datetime(day.year, day.month, day.day, tzinfo=time_zone).timestamp()) for day in (first, after)
    )
