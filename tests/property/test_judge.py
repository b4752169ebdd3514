"""A refusal worked out from any counters: right about whether, honest about how long, and about what helps."""

import hypothesis.strategies as st
from hypothesis import given

from gateway.domain.decisions import Line, Reservation, judge
from gateway.domain.limits import MAXIMUM, Remedy

NOW_S = 1_800_000_000

counts = st.integers(0, 40) | st.integers(0, MAXIMUM)


@st.composite
def lines(draw: st.DrawFn) -> Line:
    """One limit whose window runs now."""
    end_s = NOW_S + draw(st.integers(1, 31 * 86_400))
    remedy = draw(st.sampled_from(list(Remedy)))
    return Line(f"limit{draw(st.integers())}", NOW_S - 60, end_s, draw(counts), draw(counts), remedy)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Reservation, int, tuple[int, ...], int]:
    """A request, the time in ms within its windows, and the counters it meets."""
    asked = tuple(draw(st.lists(lines(), max_size=5)))
    used = tuple(draw(counts) for _ in asked)
    reservation = Reservation("r", "a", 1, asked, draw(st.integers(-1, 4)))
    return reservation, NOW_S * 1000 + draw(st.integers(0, 999)), used, draw(st.integers(0, 5))


@given(cases())
def test_refused_exactly_where_something_does_not_fit(
    case: tuple[Reservation, int, tuple[int, ...], int],
) -> None:
    """No request that fits is refused and none that doesn't is admitted (B1)."""
    asked, now_ms, used, running = case
    fits = all(count + line.amount <= line.maximum for line, count in zip(asked.lines, used, strict=True))
    fits = fits and (asked.concurrency < 0 or running < asked.concurrency)
    assert (judge(asked, now_ms, used, running) is None) == fits


@given(cases())
def test_retry_after_is_the_first_second_at_which_it_fits(
    case: tuple[Reservation, int, tuple[int, ...], int],
) -> None:
    """A caller who waits as told is admitted, had nobody else come; one second less would not do (D5)."""
    asked, now_ms, used, running = case
    refused = judge(asked, now_ms, used, running)
    if refused is None or refused.limit == "concurrency":
        return
    if refused.retry_after_s is None:
        assert any(line.amount > line.maximum for line in asked.lines)
        return
    over = [line for line, count in zip(asked.lines, used, strict=True) if count + line.amount > line.maximum]
    wait_ms = refused.retry_after_s * 1000
    assert all(line.end_s * 1000 <= now_ms + wait_ms for line in over)
    assert any(line.end_s * 1000 > now_ms + wait_ms - 1000 for line in over)
    after = tuple(
        0 if line.end_s * 1000 <= now_ms + wait_ms else count for line, count in zip(asked.lines, used, strict=True)
    )
    again = judge(asked, now_ms + wait_ms, after, running)
    assert again is None or again.limit == "concurrency"


@given(cases())
def test_the_refusal_names_a_limit_that_refuses(case: tuple[Reservation, int, tuple[int, ...], int]) -> None:
    """What the answer says is true: name, maximum, need and remedy belong to one limit that is really short (B4)."""
    asked, now_ms, used, running = case
    refused = judge(asked, now_ms, used, running)
    if refused is None:
        return
    assert (refused.used, refused.running, refused.now_ms) == (used, running, now_ms)
    if refused.limit == "concurrency":
        assert refused.maximum == asked.concurrency <= running
        return
    assert any(
        (line.name, line.maximum, line.amount, line.remedy)
        == (refused.limit, refused.maximum, refused.needed, refused.remedy)
        and count + line.amount > line.maximum
        for line, count in zip(asked.lines, used, strict=True)
    )


@given(cases())
def test_a_hopeless_request_is_told_so(case: tuple[Reservation, int, tuple[int, ...], int]) -> None:
    """A request larger than its limit never gets a Retry-After: its SDK would retry for ever."""
    asked, now_ms, used, running = case
    refused = judge(asked, now_ms, used, running)
    if any(line.amount > line.maximum for line in asked.lines):
        assert refused is not None
        assert refused.retry_after_s is None
