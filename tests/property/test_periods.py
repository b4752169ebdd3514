"""Billing periods in any zone, by any interval, from any start: they tile the time line, and months end right."""

from calendar import monthrange
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
from hypothesis import given

from gateway.domain.limits import Limit, Tier, Unit, Window
from gateway.domain.periods import Interval, Period, period_bounds, period_of
from gateway.domain.windows import span
from tests.property.test_windows import moments, zones

intervals = st.one_of(
    st.builds(Interval, months=st.sampled_from([1, 3, 6, 12])), st.builds(Interval, days=st.sampled_from([1, 7, 14]))
)
periods = st.builds(
    lambda start_s, length_s, interval, anchor_s: Period(start_s, start_s + length_s, interval, anchor_s),
    moments,
    st.integers(1, 400 * 86_400),
    intervals,
    st.none() | moments,
)


@given(periods, moments, zones)
def test_periods_tile_the_time_line(period: Period, now_s: int, zone: ZoneInfo) -> None:
    """A1, B7: every moment lies in one period and each ends where the next begins: no use falls between two."""
    start_s, end_s = period_bounds(period, now_s, zone)

    assert start_s <= now_s < end_s
    assert period_bounds(period, start_s, zone) == period_bounds(period, end_s - 1, zone) == (start_s, end_s)
    assert period_bounds(period, end_s, zone)[0] == end_s
    assert period_bounds(period, start_s - 1, zone)[1] == start_s


@given(moments, st.integers(0, 40), st.none() | moments)
def test_monthly_renewals_fall_on_the_anchors_day(anchor_s: int, later: int, told_s: int | None) -> None:
    """A1: who began on the 31st renews on the last day of short months, and on the 31st again where there is one."""
    anchor = datetime.fromtimestamp(anchor_s, UTC)
    period = period_of(anchor_s, None, Interval(), anchor_s)
    assert period is not None
    now_s = anchor_s + later * 30 * 86_400 if told_s is None else told_s

    start = datetime.fromtimestamp(period_bounds(period, now_s, UTC_ZONE)[0], UTC)

    assert start.day == min(anchor.day, monthrange(start.year, start.month)[1])
    assert start.time() == anchor.time()


@given(periods, periods, moments)
def test_a_counter_of_a_period_is_named_by_its_window(one: Period, other: Period, now_s: int) -> None:
    """A5: two periods share a counter exactly if their windows begin together, so a moved anchor never mixes counts."""
    limit = Limit(Unit.TOKENS, Window.PERIOD, 1)
    spans = [span(Tier("t", (limit,), period=period), limit, now_s) for period in (one, other)]

    assert (spans[0][0] == spans[1][0]) == (spans[0][1] == spans[1][1])


UTC_ZONE = Tier("t", ()).time_zone
