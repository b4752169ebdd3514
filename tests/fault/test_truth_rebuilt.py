"""A settlement repeated after the limiter lost and rebuilt the account: only the ledger knows, so it is asked."""

import pytest

from gateway.domain.decisions import Counter
from tests.support.limiters import ACCOUNT, Subject, admit, asked, counts, hydrate, line, settled


async def _admitted_then_lost(subject: Subject) -> int:
    """An account with one request admitted (nothing is left of its hold), and rebuilt later; when it was admitted."""
    await hydrate(subject, Counter("requests/hour", subject.clock.now_s, 3))
    request = asked("r1", line(subject.clock.now_s, 10))
    admitted = await admit(subject, request)
    await subject.limiter.settle(settled(request, 1))
    subject.clock.now_us += 1_000_000
    await subject.lose(ACCOUNT)
    await subject.take_events()
    await hydrate(subject, Counter("requests/hour", request.lines[0].start_s, 3))
    return admitted.now_ms


async def test_a_repeat_that_may_be_in_the_rebuilt_counts_has_them_rebuilt_again(subject: Subject) -> None:
    """Whether the first attempt was lost before the rebuilding or counted in it, nobody but the ledger knows: to guess
    either way would lose usage or double it. The event goes to the ledger, and the state is dropped.
    """  # noqa: D205
    admitted_ms = await _admitted_then_lost(subject)
    request = asked("r1", line(subject.clock.now_s - 1, 10))
    await subject.limiter.settle(settled(request, 1, again=True, admitted_ms=admitted_ms))
    assert await subject.limiter.peek(ACCOUNT) is None
    assert await subject.take_events() == [b"event"]
    assert await hydrate(subject, Counter("requests/hour", subject.clock.now_s, 4))
    assert (await counts(subject))["requests/hour"][1] == 4


@pytest.mark.parametrize(("again", "used"), [(True, 3), (False, 4)])
async def test_counts_that_were_not_rebuilt_since_are_left_alone(subject: Subject, again: bool, used: int) -> None:
    """A repeat whose account lost nothing since was taken the first time; a first attempt without a hold is charged."""
    await hydrate(subject, Counter("requests/hour", subject.clock.now_s, 3))
    subject.clock.now_us += 1_000_000
    request = asked("r1", line(subject.clock.now_s - 1, 10))
    await subject.limiter.settle(settled(request, 1, again=again, admitted_ms=subject.clock.now_s * 1000))
    assert (await counts(subject))["requests/hour"][1] == used
