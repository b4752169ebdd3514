"""Schedules of tiers, to the second."""

import pytest

from gateway.domain.schedules import DAY_S, Schedule

NOON, MIDNIGHT = 43_200, 0
DAY = 20_000 * DAY_S


@pytest.mark.parametrize(
    ("at_s", "second", "last_s", "next_s"),
    [
        ((NOON,), NOON - 1, NOON - DAY_S, NOON),
        ((NOON,), NOON, NOON, NOON + DAY_S),
        ((NOON,), NOON + 1, NOON, NOON + DAY_S),
        ((MIDNIGHT, NOON), 0, 0, NOON),
        ((MIDNIGHT, NOON), DAY_S - 1, NOON, DAY_S),
        ((0, 21_600, NOON, 64_800), 21_599, 0, 21_600),
    ],
)
def test_an_opening_is_found_on_either_side(at_s: tuple[int, ...], second: int, last_s: int, next_s: int) -> None:
    """D2: who is told a wrong time comes in vain, or misses it."""
    schedule = Schedule(at_s, 3600)

    assert schedule.last_s(DAY + second) == DAY + last_s
    assert schedule.next_s(DAY + second) == DAY + next_s


@pytest.mark.parametrize(
    ("second", "on_request", "is_open"),
    [
        (NOON - 1, False, False),
        (NOON, False, True),
        (NOON + 3599, False, True),
        (NOON + 3600, False, False),
        (NOON - 1, True, True),
    ],
)
def test_it_is_open_for_its_time_alone(second: int, *, on_request: bool, is_open: bool) -> None:
    """D2: a tier that has it on request has it always."""
    assert Schedule((NOON,), 3600, on_request).is_open(DAY + second) is is_open


def test_an_opening_may_last_past_midnight() -> None:
    """D2: 23:30 with an hour is open until 00:30 of the next day."""
    assert Schedule((84_600,), 3600).is_open(DAY + 1799)
    assert not Schedule((84_600,), 3600).is_open(DAY + 1800)
