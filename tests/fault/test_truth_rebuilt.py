"""What only the ledger can tell after the limiter lost its memory, or its clock stepped back: so it is asked."""

import pytest

from gateway.domain.decisions import Counter
from tests.support.limiters import ACCOUNT, RedisSubject, Subject, admit, asked, counts, hydrate, line, settled

BACK_US = 2_000_000


@pytest.mark.parametrize("back_us", [0, BACK_US])
async def test_a_repeat_that_may_be_in_the_rebuilt_counts_has_them_rebuilt_again(
    subject: Subject, back_us: int
) -> None:
    """D6, A8: whether the first attempt was lost before the rebuilding or counted in it, nobody but the ledger knows:
    to guess either way would lose usage or double it. The event goes to the ledger, and the state is dropped; whatever
    the clock says, as one that steps back in these seconds would have the rebuilding come before the request.
    """  # noqa: D205
    now_s = subject.clock.now_s
    subject.clock.now_us += BACK_US
    await hydrate(subject, Counter("requests/hour", now_s, 3))
    eras = await subject.eras()
    request = asked("r1", line(now_s, 10))
    await admit(subject, request)
    await subject.limiter.settle(settled(request, 1, eras=eras))
    await subject.lose_all()
    subject.clock.now_us -= back_us
    await hydrate(subject, Counter("requests/hour", now_s, 3))
    await subject.limiter.settle(settled(request, 1, again=True, eras=eras))
    assert await subject.limiter.peek(ACCOUNT) is None
    assert await subject.take_events() == [b"event"]
    assert await hydrate(subject, Counter("requests/hour", now_s, 4))
    assert (await counts(subject))["requests/hour"][1] == 4


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize(("again", "used"), [(True, 3), (False, 4)])
async def test_what_lost_no_more_than_an_accounts_state_is_left_alone(
    subject: Subject, again: bool, used: int, lost: bool
) -> None:
    """A repeat was taken the first time, if nothing but the account's own state was lost since: its event is in the
    ledger or on its way, and what was rebuilt has it. A first attempt without a hold is charged.
    """  # noqa: D205
    await hydrate(subject, Counter("requests/hour", subject.clock.now_s, 3))
    eras = await subject.eras()
    if lost:
        await subject.lose(ACCOUNT)
        await hydrate(subject, Counter("requests/hour", subject.clock.now_s, 3))
    request = asked("r1", line(subject.clock.now_s, 10))
    await subject.limiter.settle(settled(request, 1, again=again, eras=eras))
    assert (await counts(subject))["requests/hour"][1] == used


async def test_a_repeat_of_a_request_of_which_no_era_is_known_leaves_it_to_the_ledger(subject: Subject) -> None:
    """Who has just begun, and does not know what was lost, trusts nothing."""
    await hydrate(subject, Counter("requests/hour", subject.clock.now_s, 3))
    await subject.limiter.settle(settled(asked("r1", line(subject.clock.now_s, 10)), 1, again=True))
    assert await subject.limiter.peek(ACCOUNT) is None


async def test_usage_of_a_window_that_the_account_does_not_know_has_it_rebuilt(subject: Subject) -> None:
    """A8: a request of the window that had begun, of which the limiter lost hold and count as its clock stepped back
    before that window: once time gets there again, the window would begin without it.
    """  # noqa: D205
    later_s = subject.clock.now_s
    subject.clock.now_us -= BACK_US
    await hydrate(subject, Counter("requests/hour", later_s - 3600, 3))
    await subject.limiter.settle(settled(asked("r1", line(later_s, 10)), 1))
    assert await subject.limiter.peek(ACCOUNT) is None
    assert await subject.take_events() == [b"event"]


async def test_a_hold_of_a_later_window_takes_the_account_there(subject: Subject) -> None:
    """A8: the same where the hold is there still: the account counts in the window that it had begun."""
    later_s = subject.clock.now_s
    await hydrate(subject, Counter("requests/hour", later_s, 0))
    await admit(subject, asked("r1", line(later_s, 10, 4)))
    await subject.lose(ACCOUNT)
    subject.clock.now_us -= BACK_US
    await hydrate(subject, Counter("requests/hour", later_s - 3600, 3))
    assert await counts(subject) == {"requests/hour": (later_s, 4)}


async def test_a_gateway_hears_the_eras_with_each_look_for_what_is_due(redis_subject: RedisSubject) -> None:
    """What it knows of them is as old as its last look, and is never taken from a look that failed."""
    assert redis_subject.limiter.eras == ()
    await hydrate(redis_subject)
    await redis_subject.limiter.reap()
    heard = redis_subject.limiter.eras
    assert heard == await redis_subject.eras()
    assert sorted(map(bool, heard)) == [False, True], "the account's partition alone has begun"
    await redis_subject.lose_all()
    await hydrate(redis_subject)
    await redis_subject.limiter.reap()
    assert redis_subject.limiter.eras not in {heard, ()}
