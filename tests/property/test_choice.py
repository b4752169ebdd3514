"""Which target is picked: by weight and load among the fit ones, whatever happened before."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.faults import UPSTREAM_DOWN, UPSTREAM_RATE_LIMITED
from gateway.upstream.choice import Choice, Member, Retry, Upstream
from gateway.upstream.health import Health
from gateway.upstream.retry_after import retry_after_s
from gateway.upstream.target import Target
from tests.support.transports import NOWHERE


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """The moment."""
        return self.now_s


def longest(_: float, most: float) -> float:
    """No jitter: the longest pause."""
    return most


def health(clock: Callable[[], float], failures: int = 2) -> Health:
    """A target's health: pauses of 1, 2, 4, 8, 8 … s, rests of at most 30 s."""
    return Health(
        "t", failures=failures, first_pause_s=1, longest_pause_s=8, longest_rest_s=30, clock=clock, jitter=longest
    )


def fit(one: Health) -> bool:
    """Whether it may be asked."""
    return one.is_fit


def opened(one: Health) -> bool:
    """Whether it failed and nothing has succeeded since."""
    return one.is_open


def upstream(clock: Clock, *weights: int) -> Upstream:
    """An upstream whose targets have these weights."""
    members = [
        Member(Target("u", NOWHERE, None), f"u/{n}", weight, health(clock)) for n, weight in enumerate(weights, 1)
    ]
    return Upstream("u", tuple(members))


STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "end", "fail", "rest", "leave", "wait", "check", "ill"]), st.integers(0, 40)),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), STEPS)
def test_a_target_that_is_unfit_is_never_picked(weights: list[int], steps: list[tuple[str, int]]) -> None:
    """F5: while a fit target is there, no caller meets one that rests or is open; and an open one has one probe."""
    clock = Clock()
    here = upstream(clock, *weights)
    under_way: list[tuple[Member, bool]] = []
    for step, number in steps:
        if step == "ask":
            under_way += [(picked, picked.health.begin())] if (picked := pick_well(here)) else []
        elif step == "wait":
            clock.now_s += number
        elif step in {"check", "ill"}:
            here.members[number % len(weights)].health.checked("ill" if step == "ill" else "")
        elif under_way:
            end(*under_way.pop(number % len(under_way)), step, number)
    clock.now_s += 100
    for member, probe in under_way:
        end(member, probe, "leave", 0)
    assert all(member.health.is_fit and member.running == 0 for member in here.members)


def pick_well(here: Upstream) -> Member | None:
    """Pick, and hold what was picked against what was there."""
    well = [member for member in here.members if member.health.is_fit]
    picked = here.pick(())
    assert (picked is None) == (not well)
    if picked is not None:
        assert picked in well
        assert picked.load == min(member.load for member in well)
        picked.running += 1
    return picked


def end(member: Member, probe: bool, how: str, number: int) -> None:
    """A request ends: well, failed, told "later", or its caller left."""
    member.running -= 1
    if how == "end":
        member.health.succeed(probe=probe)
    elif how == "fail":
        member.health.fail("it failed", probe=probe)
    elif how == "rest":
        member.health.succeed(probe=probe)
        member.health.rest(float(number), "later")
        assert number == 0 or not member.health.is_fit
    else:
        member.health.abandon(probe=probe)


@pytest.mark.parametrize("held", [1, 24])
def test_requests_are_spread_by_weight(held: int) -> None:
    """F5: a lone caller's requests one after another, and many at once, go 3 to 2 to 1."""
    here = upstream(Clock(), 3, 2, 1)
    counts: Counter[str] = Counter()
    running: list[Member] = []
    for _ in range(600):
        picked = here.pick(())
        assert picked is not None
        picked.running += 1
        counts[picked.label] += 1
        running.append(picked)
        if len(running) >= held:
            running.pop(0).running -= 1
    assert [round(counts[f"u/{n}"] / 100) for n in (1, 2, 3)] == [3, 2, 1]


def test_pauses_grow_and_a_probe_decides() -> None:
    """F5: a target that stays down is asked ever more rarely, by one request at a time; one good answer ends it."""
    clock = Clock()
    one = health(clock)
    one.fail("a", probe=False)
    assert fit(one)
    one.fail("b", probe=False)
    for pause_s in (1, 2, 4, 8, 8):
        assert not fit(one)
        clock.now_s += pause_s - 0.01
        assert not fit(one)
        clock.now_s += 0.01
        assert fit(one)
        assert one.begin()
        assert not fit(one)
        one.fail("still", probe=True)
    clock.now_s += 8
    one.succeed(probe=False)
    assert opened(one)
    assert one.begin()
    one.succeed(probe=True)
    assert not opened(one)
    assert fit(one)


def test_nothing_fit_says_why_and_for_how_long() -> None:
    """F5: a 429 of the upstream's and a pool that is down are two things to a client, each with its true wait."""
    clock = Clock()
    here = upstream(clock, 1, 1)
    choice = Choice((here,), Retry(3, 30, unsafe=False), lambda *_: None)
    for member in here.members:
        member.health.fail("x", probe=False)
        member.health.fail("refused", probe=False)
    down = choice.unavailable(clock.now_s)
    assert (down.kind, down.retry_after_s) == (UPSTREAM_DOWN, 1)
    assert "u/2: refused" in down.internal
    here.members[0].health.rest(120, "answered 429")
    limited = choice.unavailable(clock.now_s)
    assert (limited.kind, limited.retry_after_s) == (UPSTREAM_RATE_LIMITED, 120)
    clock.now_s += 31
    assert here.pick(()) is not None


@pytest.mark.parametrize(
    ("value", "told_s"),
    [
        (b"7", 7),
        (b"0", 0),
        (b"1.5", 1.5),
        (b"Thu, 01 Jan 1970 00:20:00 GMT", 200),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0),
        (b"soon", None),
        (b"-3", None),
        (b"9" * 400, None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_retry_after(value: bytes, told_s: float | None) -> None:
    """RFC 9110 §10.2.3: seconds or a date; what can't be read must not break the request that waits for it."""
    assert retry_after_s([(b"date", b"x"), (b"retry-after", value)], 1000) == told_s
    assert retry_after_s([(b"retry-after-ms", b"250"), (b"retry-after", value)], 1000) == 0.25


@given(st.binary(max_size=40))
def test_retry_after_takes_any_bytes(value: bytes) -> None:
    """A hostile upstream's header is read or left, and never raises."""
    told_s = retry_after_s([(b"retry-after", value)], 1000)
    assert told_s is None or told_s >= 0
