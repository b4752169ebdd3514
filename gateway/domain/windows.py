"""Calendar windows: which span a moment belongs to. Pure arithmetic, no clock of its own.

A window resets because its start changes; nothing has to run for it.
"""

from datetime import UTC, datetime, timedelta
from typing import assert_never
from zoneinfo import ZoneInfo

from gateway.domain.limits import Window


def bounds(window: Window, now_s: int, time_zone: ZoneInfo) -> tuple[int, int]:
    """Start (inclusive) and end (exclusive), as Unix seconds, of the window that holds `now_s`.

    Weeks begin on Monday (ISO 8601). A day, week or month begins and ends at local midnight, so that one with a
    clock change in it is an hour shorter or longer; hours and minutes are spans of UTC.
    """
    match window:
        case Window.MINUTE:
            return _span(now_s, 60)
        case Window.HOUR:
            return _span(now_s, 3600)
        case Window.DAY | Window.WEEK | Window.MONTH:
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
