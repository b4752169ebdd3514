"""An account's usage month by month: its days, their sum, average and peak, and what kind of account it was.

Days and months are UTC's, as usage is summed by them. A month's kind is that of its last second (of now, in the month
that runs), worked out from the subscriptions as they stood then.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.console.moments import moment
from gateway.domain.subscriptions import Subscription
from gateway.ledger.usage import DayUsage

MOST_MONTHS = 120
_DAY_S = 86_400


def month_starts(now_s: int, months: int, created_s: int) -> list[int]:
    """The first second of each of the last `months` months, this one last; none from before the account was made."""
    first = datetime.fromtimestamp(now_s, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    starts = [int(first.timestamp())]
    while len(starts) < months and starts[0] > created_s:
        first = (first - timedelta(days=1)).replace(day=1)
        starts.insert(0, int(first.timestamp()))
    return starts


def month_body(start_s: int, end_s: int, now_s: int, days: Sequence[DayUsage], kind: str) -> dict[str, Any]:
    """One month. `average_per_day` is over its days so far, used or not; the peak is the first of the highest days."""
    by_day = {moment(day.day_s * 1000)[:10]: day.totals.tokens for day in days if start_s <= day.day_s < end_s}
    passed = max(1, -(-(min(end_s, now_s + 1) - start_s) // _DAY_S))
    peak = max(by_day, key=by_day.__getitem__, default=None)
    return {
        "month": moment(start_s * 1000)[:7],
        "days": by_day,
        "tokens": sum(by_day.values()),
        "average_per_day": round(sum(by_day.values()) / passed, 1),
        "peak_day": peak,
        "peak_tokens": 0 if peak is None else by_day[peak],
        "kind": kind,
    }


def as_of(history: Sequence[tuple[int, Subscription]], at_ms: int) -> tuple[Subscription, ...]:
    """The subscriptions as they stood at a moment, of all states that they were in, oldest first."""
    standing = {one.id: one for since_ms, one in history if since_ms <= at_ms}
    return tuple(standing.values())
