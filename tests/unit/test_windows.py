"""Windows at the dates people argue about, each worked out by hand."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from gateway.domain.limits import Window
from gateway.domain.windows import bounds


@pytest.mark.parametrize(
    ("window", "zone", "now", "start", "end"),
    [
        (Window.MINUTE, "UTC", "2026-03-01T14:59:59Z", "2026-03-01T14:59:00Z", "2026-03-01T15:00:00Z"),
        (Window.HOUR, "UTC", "2026-03-01T14:00:00Z", "2026-03-01T14:00:00Z", "2026-03-01T15:00:00Z"),
        (Window.HOUR, "Asia/Kolkata", "2026-03-01T14:45:00Z", "2026-03-01T14:00:00Z", "2026-03-01T15:00:00Z"),
        (Window.DAY, "UTC", "2026-03-01T23:59:59Z", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"),
        (Window.DAY, "Asia/Kolkata", "2026-03-01T18:30:00Z", "2026-03-01T18:30:00Z", "2026-03-02T18:30:00Z"),
        (Window.DAY, "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
        (Window.DAY, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
        (Window.WEEK, "UTC", "2026-03-01T12:00:00Z", "2026-02-23T00:00:00Z", "2026-03-02T00:00:00Z"),
        (Window.WEEK, "UTC", "2026-03-02T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"),
        (Window.MONTH, "UTC", "2026-02-28T23:59:59Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
        (Window.MONTH, "UTC", "2028-02-29T00:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
        (Window.MONTH, "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        (Window.MONTH, "America/New_York", "2026-03-01T04:59:59Z", "2026-02-01T05:00:00Z", "2026-03-01T05:00:00Z"),
    ],
)
def test_bounds(window: Window, zone: str, now: str, start: str, end: str) -> None:
    """Each window is the one a calendar shows: a customer can check every reset by hand (C1, D1)."""
    got = bounds(window, int(datetime.fromisoformat(now).timestamp()), ZoneInfo(zone))
    assert tuple(datetime.fromtimestamp(moment, UTC).isoformat() for moment in got) == (
        start.replace("Z", "+00:00"),
        end.replace("Z", "+00:00"),
    )
