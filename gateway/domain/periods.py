"""Billing periods: from one moment to another, and those that follow by the same interval. Pure arithmetic.

A period that is known (a payment provider tells its start and end) is taken as it is. What lies beyond it is worked out
from its edges in local time, so that a renewal that nobody has told of yet begins all the same. Months end right: from
31 January come 28 February and 31 March.
"""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec


class Interval(msgspec.Struct, frozen=True, gc=False):
    """How far apart renewals are: `days` if not 0, else `months`. Weeks are 7 days, years 12 months."""

    months: int = 1
    days: int = 0


class Period(msgspec.Struct, frozen=True, gc=False):
    """From `start_s` until before `end_s` (Unix seconds, start < end), and then every `interval`.

    `anchor_s` is the moment whose day of the month renewals fall on; None takes that of `start_s`.
    """

    start_s: int
    end_s: int
    interval: Interval = Interval()
    anchor_s: int | None = None


def period_of(start_s: int | None, end_s: int | None, interval: Interval, anchor_s: int | None) -> Period | None:
    """A period of what is known of it; None without a start, or where the end is none. Without an end, one interval."""
    if start_s is None:
        return None
    if end_s is None:
        day = _local(start_s if anchor_s is None else anchor_s, _UTC).day
        end_s = _step(start_s, 1, interval, day, _UTC)
    return Period(start_s, end_s, interval, anchor_s) if start_s < end_s else None


def period_bounds(period: Period, now_s: int, time_zone: ZoneInfo) -> tuple[int, int]:
    """Start (inclusive) and end (exclusive), Unix seconds, of the period that holds `now_s`: itself, or a later or
    earlier one by its interval. They tile the time line.
    """  # noqa: D205
    if period.start_s <= now_s < period.end_s:
        return period.start_s, period.end_s
    edge_s = period.end_s if now_s >= period.end_s else period.start_s
    day = _day_of_month(period, edge_s, time_zone)
    count = _guess(edge_s, now_s, period.interval)
    while _step(edge_s, count, period.interval, day, time_zone) > now_s:
        count -= 1
    while (end_s := _step(edge_s, count + 1, period.interval, day, time_zone)) <= now_s:
        count += 1
    return _step(edge_s, count, period.interval, day, time_zone), end_s


_UTC = ZoneInfo("UTC")
_MONTH_S, _DAY_S = 2_629_746, 86_400


def _guess(edge_s: int, now_s: int, interval: Interval) -> int:
    return (now_s - edge_s) // (interval.days * _DAY_S or max(1, interval.months) * _MONTH_S)


def _day_of_month(period: Period, edge_s: int, time_zone: ZoneInfo) -> int:
    """The anchor's day, unless the edge itself falls on another: then the edge's."""
    anchor = _local(period.start_s if period.anchor_s is None else period.anchor_s, time_zone).day
    edge = _local(edge_s, time_zone)
    return anchor if edge.day == min(anchor, monthrange(edge.year, edge.month)[1]) else edge.day


def _step(edge_s: int, count: int, interval: Interval, day: int, time_zone: ZoneInfo) -> int:
    """The edge that comes `count` intervals after `edge_s`, at the same local time of day."""
    if count == 0:
        return edge_s
    edge = _local(edge_s, time_zone)
    if interval.days:
        return int((edge + timedelta(days=count * interval.days)).timestamp())
    years, month = divmod(edge.month - 1 + count * max(1, interval.months), 12)
    year = edge.year + years
    last = monthrange(year, month + 1)[1]
    return int(edge.replace(year=year, month=month + 1, day=min(day, last)).timestamp())


def _local(moment_s: int, time_zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(moment_s, UTC).astimezone(time_zone)
