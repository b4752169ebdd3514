"""Calendar windows for any moment, in zones that stress them: clock changes, half hours, skipped and short months."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gateway.domain.limits import Window
from gateway.domain.windows import bounds

ZONES = [
    ZoneInfo(key)
    for key in (
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kolkata",  # half an hour
        "Asia/Kathmandu",  # three quarters
        "Australia/Lord_Howe",  # a clock change of half an hour
        "America/St_Johns",
        "Pacific/Kiritimati",
        "Pacific/Apia",  # left out 30 December 2011
        "America/Sao_Paulo",  # used to change its clock at midnight, so that some days have no 00:00
        "Africa/Cairo",
        "Asia/Beirut",
    )
]

moments = st.integers(946_684_800, 4_102_444_800)  # 2000 to 2100
zones = st.sampled_from(ZONES)
windows = st.sampled_from([window for window in Window if window is not Window.LIFETIME])


@given(windows, moments, zones)
def test_a_window_holds_its_moment(window: Window, now_s: int, zone: ZoneInfo) -> None:
    """Every moment is in the window computed for it; otherwise each request of that moment is skewed for ever."""
    start_s, end_s = bounds(window, now_s, zone)
    assert start_s <= now_s < end_s


@given(windows, moments, zones)
def test_windows_follow_each_other_without_gap_or_overlap(window: Window, now_s: int, zone: ZoneInfo) -> None:
    """A window's end is the next one's start, and every moment in it finds the same window: no use is counted twice."""
    start_s, end_s = bounds(window, now_s, zone)
    assert bounds(window, start_s, zone) == (start_s, end_s)
    assert bounds(window, end_s - 1, zone) == (start_s, end_s)
    assert bounds(window, end_s, zone)[0] == end_s
    assert bounds(window, start_s - 1, zone)[1] == start_s


@given(st.sampled_from([Window.DAY, Window.WEEK, Window.MONTH]), moments, zones)
def test_a_day_begins_at_local_midnight(window: Window, now_s: int, zone: ZoneInfo) -> None:
    """Callers who read "per day" mean their own day: it begins with its first local moment (C1)."""
    start_s, _ = bounds(window, now_s, zone)
    first = datetime.fromtimestamp(start_s, UTC).astimezone(zone)
    before = datetime.fromtimestamp(start_s - 1, UTC).astimezone(zone)
    assert first.date() > before.date()
    today = datetime.fromtimestamp(now_s, UTC).astimezone(zone).date()
    if window is Window.DAY:
        assert first.date() == today
    elif window is Window.WEEK:
        monday = today - timedelta(days=today.weekday())
        assert monday <= first.date() <= monday + timedelta(days=1)
    else:
        assert (first.year, first.month) == (today.year, today.month)


@given(moments, zones)
def test_windows_are_as_long_as_the_calendar_says(now_s: int, zone: ZoneInfo) -> None:
    """An hour is an hour everywhere; a day, a week and a month vary by their clock changes and no more."""
    assert _length_s(Window.MINUTE, now_s, zone) == 60
    assert _length_s(Window.HOUR, now_s, zone) == 3600
    slack_s = 86_400 if zone.key == "Pacific/Apia" else 2 * 3600
    for window, least_days, most_days in ((Window.DAY, 1, 1), (Window.WEEK, 7, 7), (Window.MONTH, 28, 31)):
        length_s = _length_s(window, now_s, zone)
        assert least_days * 86_400 - slack_s <= length_s <= most_days * 86_400 + slack_s


@given(moments)
def test_in_utc_days_and_weeks_are_exact(now_s: int) -> None:
    """Without clock changes all is plain: the default time zone has no surprises (C1, D1)."""
    utc = ZONES[0]
    assert _length_s(Window.DAY, now_s, utc) == 86_400
    assert _length_s(Window.WEEK, now_s, utc) == 7 * 86_400
    start_s, end_s = bounds(Window.MONTH, now_s, utc)
    assert datetime.fromtimestamp(start_s, UTC).day == datetime.fromtimestamp(end_s, UTC).day == 1


@pytest.mark.parametrize("key", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut"])
def test_each_hour_of_a_year_of_clock_changes(key: str) -> None:
    """The two days a year on which clocks change are the ones random moments miss."""
    zone, start_s = ZoneInfo(key), 1_767_225_600
    for window in (Window.DAY, Window.WEEK, Window.MONTH):
        seen = {bounds(window, start_s + hour * 3600, zone) for hour in range(366 * 24)}
        spans = sorted(seen)
        assert all(left[1] == right[0] for left, right in pairwise(spans))


def _length_s(window: Window, now_s: int, zone: ZoneInfo) -> int:
    start_s, end_s = bounds(window, now_s, zone)
    return end_s - start_s
