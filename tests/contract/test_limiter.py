"""What any limiter promises of `reserve`: all lines or nothing, exact to one, in the window that runs now."""

import pytest

from gateway.domain.decisions import Admitted, Counter, Missing, Refused, Skewed, Stale
from gateway.domain.limits import Remedy
from tests.support.limiters import ACCOUNT, Subject, admit, asked, counts, hydrate, line, running, settled

HOUR_S = 3600


async def test_an_admitted_request_holds_every_line_and_a_slot(subject: Subject) -> None:
    """A hold counts at once on every limit: without it, requests that run together all pass (D1, B1)."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    tokens = line(now_s, 1000, 300, name="tokens/day", length_s=86_400)
    first = await admit(subject, asked("r1", line(now_s, 5), tokens))
    second = await admit(subject, asked("r2", line(now_s, 5), tokens))
    assert (first.used, first.running) == ((1, 300), 1)
    assert (second.used, second.running) == ((2, 600), 2)
    assert second.now_ms == subject.clock.now_us // 1000
    assert await counts(subject) == {"requests/hour": (now_s, 2), "tokens/day": (now_s, 600)}


async def test_the_limit_itself_is_admitted_and_one_more_is_not(subject: Subject) -> None:
    """A limit of n admits exactly n: off by one either cheats the caller or the owner (D1)."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    for number in range(3):
        await admit(subject, asked(f"r{number}", line(now_s, 3)))
    refused = await subject.limiter.reserve(asked("r3", line(now_s, 3)))
    assert refused == Refused(
        now_ms=now_s * 1000,
        used=(3,),
        running=3,
        limit="requests/hour",
        maximum=3,
        needed=1,
        retry_after_s=HOUR_S,
        remedy=Remedy.WAIT,
    )


async def test_a_refused_request_takes_nothing(subject: Subject) -> None:
    """One full limit leaves the others untouched: else refused calls eat what was paid for."""
    now_s = subject.clock.now_s
    await hydrate(subject, Counter("tokens/day", now_s, 990), Counter("requests/hour", 0, 0))
    tokens = line(now_s, 1000, 11, name="tokens/day", length_s=86_400)
    refused = await subject.limiter.reserve(asked("r1", line(now_s, 5), tokens, concurrency=3))
    assert isinstance(refused, Refused)
    assert (refused.limit, refused.used) == ("tokens/day", (0, 990))
    assert await counts(subject) == {"tokens/day": (now_s, 990)}
    assert await running(subject) == 0


async def test_a_limit_that_is_new_makes_the_account_missing(subject: Subject) -> None:
    """D3: on another tier, or under new settings, a window's count begins with what was used of it before, which the
    ledger alone knows; at 0 a caller would get the window twice by changing tiers.
    """  # noqa: D205
    now_s = subject.clock.now_s
    await hydrate(subject, Counter("requests/hour", now_s, 3))
    await admit(subject, asked("r1", line(now_s, 9)))
    later = asked("r2", line(now_s, 9), line(now_s, 100, 5, name="tokens/day", length_s=86_400), version=2)
    assert isinstance(await subject.limiter.reserve(later), Missing)
    await hydrate(subject, Counter("requests/hour", now_s, 3), Counter("tokens/day", now_s, 95), version=2)
    assert (await admit(subject, later)).used == (5, 100)
    assert await running(subject) == 2


async def test_a_limit_of_zero_admits_nothing(subject: Subject) -> None:
    """A tier that allows none of a unit is never served by mistake, and told that waiting is no use."""
    await hydrate(subject)
    refused = await subject.limiter.reserve(asked("r1", line(subject.clock.now_s, 0)))
    assert isinstance(refused, Refused)
    assert refused.retry_after_s is None


async def test_the_same_request_asked_twice_is_held_once(subject: Subject) -> None:
    """A retry after an unclear time-out answers as before and takes nothing more, even where the limit is full now."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    only = asked("r1", line(now_s, 1), concurrency=1)
    assert await subject.limiter.reserve(only) == await subject.limiter.reserve(only)
    assert await counts(subject) == {"requests/hour": (now_s, 1)}
    await subject.limiter.settle(settled(only, 1))
    assert await running(subject) == 0


async def test_without_state_the_answer_is_missing(subject: Subject) -> None:
    """A flushed Redis never means a fresh allowance: the account has to be hydrated first."""
    assert await subject.limiter.reserve(asked("r1", line(subject.clock.now_s, 5))) == Missing()
    assert await subject.limiter.peek(ACCOUNT) is None


async def test_an_old_version_is_stale_and_a_newer_one_is_taken_over(subject: Subject) -> None:
    """A tier change counts from the next request on every gateway, whoever hears of it first."""
    now_s = subject.clock.now_s
    await hydrate(subject, version=3)
    assert await subject.limiter.reserve(asked("r1", line(now_s, 5), version=2)) == Stale(3)
    await admit(subject, asked("r2", line(now_s, 5), version=4))
    assert await subject.limiter.reserve(asked("r3", line(now_s, 5), version=3)) == Stale(4)


async def test_a_refused_request_tells_the_newer_version_too(subject: Subject) -> None:
    """A gateway that learned of a downgrade first and refuses under it makes the others stale all the same."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    assert isinstance(await subject.limiter.reserve(asked("r1", line(now_s, 0), version=2)), Refused)
    assert await subject.limiter.reserve(asked("r2", line(now_s, 5), version=1)) == Stale(2)


async def test_a_bump_raises_the_version_and_never_lowers_it(subject: Subject) -> None:
    """Bumps that arrive out of order don't bring back a plan that was cancelled."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    await subject.limiter.bump(ACCOUNT, 5)
    await subject.limiter.bump(ACCOUNT, 4)
    assert await subject.limiter.reserve(asked("r1", line(now_s, 5), version=4)) == Stale(5)
    await admit(subject, asked("r2", line(now_s, 5), version=5))


@pytest.mark.parametrize(
    ("moved_us", "runs"),
    [(-1, False), (0, True), (HOUR_S * 1_000_000 - 1, True), (HOUR_S * 1_000_000, False)],
)
async def test_a_window_runs_from_its_start_up_to_its_end(subject: Subject, moved_us: int, runs: bool) -> None:
    """The limiter's clock decides which window runs, to the microsecond: a gateway with a wrong clock can't cheat."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    subject.clock.now_us += moved_us
    decision = await subject.limiter.reserve(asked("r1", line(now_s, 5)))
    assert isinstance(decision, Admitted if runs else Skewed)
    assert decision.now_ms == subject.clock.now_us // 1000


async def test_a_skewed_line_holds_back_the_others(subject: Subject) -> None:
    """A window that ended takes the whole request with it: the caller asks again with all windows right."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    past = line(now_s - HOUR_S, 5, name="requests/hour")
    decision = await subject.limiter.reserve(asked("r1", line(now_s, 9, name="tokens/hour"), past))
    assert decision == Skewed(now_s * 1000)
    assert await counts(subject) == {}


async def test_a_full_window_opens_exactly_at_its_end(subject: Subject) -> None:
    """Retry-After is honest: the last microsecond of the window refuses, the first of the next admits (D1, C6)."""
    start_s = subject.clock.now_s
    await hydrate(subject, Counter("requests/hour", start_s, 5))
    subject.clock.now_us += HOUR_S * 1_000_000 - 1
    refused = await subject.limiter.reserve(asked("r1", line(start_s, 5)))
    assert isinstance(refused, Refused)
    assert refused.retry_after_s == 1
    subject.clock.now_us += 1
    fresh = await admit(subject, asked("r1", line(start_s + HOUR_S, 5)))
    assert fresh.used == (1,)
    assert await counts(subject) == {"requests/hour": (start_s + HOUR_S, 1)}


async def test_a_window_never_moves_back(subject: Subject) -> None:
    """Where gateways disagree on the start (a tier's time zone changed), the later one holds what was used in it."""
    now_s = subject.clock.now_s
    await hydrate(subject, Counter("tokens/day", now_s, 7))
    earlier = line(now_s - 5 * HOUR_S, 10, 3, name="tokens/day", length_s=86_400)
    assert (await admit(subject, asked("r1", earlier))).used == (10,)
    assert isinstance(await subject.limiter.reserve(asked("r2", earlier)), Refused)
    await subject.limiter.settle(settled(asked("r1", earlier), 1))
    assert await counts(subject) == {"tokens/day": (now_s, 8)}


async def test_concurrency_is_the_number_of_live_holds(subject: Subject) -> None:
    """At most n at once, and a slot is free the moment its request is settled: a leak locks the account out."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    first, second, third = (asked(f"r{number}", line(now_s, 9), concurrency=2) for number in range(3))
    await admit(subject, first)
    await admit(subject, second)
    refused = await subject.limiter.reserve(third)
    assert isinstance(refused, Refused)
    assert (refused.limit, refused.maximum, refused.running, refused.retry_after_s) == ("concurrency", 2, 2, 1)
    await subject.limiter.settle(settled(first, 1))
    assert (await admit(subject, third)).running == 2


async def test_an_account_without_limits_is_admitted(subject: Subject) -> None:
    """A tier that limits nothing still meters: its requests have holds and slots as any other."""
    await hydrate(subject)
    assert (await admit(subject, asked("r1"))).used == ()
    assert await running(subject) == 1


async def test_the_largest_limit_is_counted_exactly(subject: Subject) -> None:
    """Counts stay exact up to 2**53 - 1, the last integer Lua keeps: no silent rounding of a big plan (A1)."""
    now_s, most = subject.clock.now_s, 2**53 - 1
    await hydrate(subject, Counter("tokens/day", now_s, most - 2))
    one = line(now_s, most, 1, name="tokens/day", length_s=86_400)
    assert (await admit(subject, asked("r1", one))).used == (most - 1,)
    assert (await admit(subject, asked("r2", one))).used == (most,)
    assert isinstance(await subject.limiter.reserve(asked("r3", one)), Refused)


async def test_the_offset_is_the_limiters_clock_minus_ours(subject: Subject) -> None:
    """Callers compute windows by the limiter's clock: without the offset a skewed gateway loops on Skewed."""
    subject.clock.now_us += 50 * 86_400 * 1_000_000
    await subject.limiter.reserve(asked("r1", line(subject.clock.now_s, 5)))
    assert 49 * 86_400_000 < subject.limiter.clock_offset_ms < 51 * 86_400_000


async def test_a_clock_that_moved_back_does_not_reopen_a_window(subject: Subject) -> None:
    """D1: after a failover to a server whose clock is behind, an account goes on in the window it was in. The caller is
    told which, so that the request's event says the same window as the count it is in: else the ledger has a request
    in a window that its counter never saw, and the next one is charged for it.
    """  # noqa: D205
    start_s = subject.clock.now_s
    await hydrate(subject)
    assert isinstance(await subject.limiter.reserve(asked("r1", line(start_s, 5))), Admitted)
    subject.clock.now_us -= 1_000_000

    behind = await subject.limiter.reserve(asked("r2", line(start_s - HOUR_S, 5)))
    assert behind == Skewed((start_s - 1) * 1000, start_s)
    again = await subject.limiter.reserve(asked("r2", line(start_s, 5)))
    assert isinstance(again, Admitted)
    assert again.used == (2,)
    assert (await counts(subject))["requests/hour"] == (start_s, 2)
