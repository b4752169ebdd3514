"""What any limiter promises when its memory is made anew from the ledger: one writer, holds kept, nothing missed."""

import asyncio

import msgspec
import pytest

from gateway.domain.decisions import Counter, Missing, Refused, Stale
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.keys import era_of
from tests.support.limiters import ACCOUNT, Subject, admit, asked, counts, hydrate, line, running, settled


async def test_what_the_ledger_knows_counts(subject: Subject) -> None:
    """After a flush of Redis a limit holds on where it was (D6, A8)."""
    now_s = subject.clock.now_s
    assert await hydrate(subject, Counter("requests/hour", now_s, 4), version=7)
    assert await subject.limiter.peek(ACCOUNT) == (7, 0, {"requests/hour": (now_s, 4)})
    await admit(subject, asked("r1", line(now_s, 5), version=7))
    assert isinstance(await subject.limiter.reserve(asked("r2", line(now_s, 5), version=7)), Refused)


async def test_a_hydration_tells_the_era(subject: Subject) -> None:
    """Whoever is admitted next names the era it is admitted in: a repeat of its settlement leaves the account as it is,
    where one without an era has it rebuilt, and all its callers wait for the ledger.
    """  # noqa: D205
    now_s = subject.clock.now_s
    await hydrate(subject, Counter("requests/hour", now_s, 0))
    assert era_of(subject.limiter.eras, ACCOUNT)

    request = asked("r1", line(now_s, 9))
    await admit(subject, request)
    once = msgspec.structs.replace(settled(request, 1), eras=subject.limiter.eras)
    await subject.limiter.settle(once)
    await subject.limiter.settle(msgspec.structs.replace(once, again=True))
    assert await counts(subject) == {"requests/hour": (now_s, 1)}


async def test_the_first_hydration_wins(subject: Subject) -> None:
    """Gateways that hydrate together write once: a late one would wipe what was counted since."""
    now_s = subject.clock.now_s
    await asyncio.gather(*[hydrate(subject, Counter("requests/hour", now_s, 4)) for _ in range(10)])
    await admit(subject, asked("r1", line(now_s, 9)))
    assert await hydrate(subject, Counter("requests/hour", now_s, 0), version=9)
    assert await subject.limiter.peek(ACCOUNT) == (1, 1, {"requests/hour": (now_s, 5)})


async def test_live_holds_are_counted_in(subject: Subject) -> None:
    """Requests under way while the state is lost keep their slots and their estimates."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    days = line(now_s - 3600, 9, name="requests/day", length_s=86_400)
    request = asked("r1", line(now_s, 100, 40), days, concurrency=2)
    await admit(subject, request)
    await subject.lose(ACCOUNT)
    assert await subject.limiter.reserve(asked("r2", line(now_s, 100))) == Missing()
    await hydrate(subject, Counter("requests/hour", now_s, 10), Counter("requests/day", now_s, 3))
    assert await counts(subject) == {"requests/hour": (now_s, 50), "requests/day": (now_s, 3)}
    assert await running(subject) == 1
    await subject.limiter.settle(settled(request, 15, 1))
    assert (await counts(subject))["requests/hour"] == (now_s, 25)
    assert await running(subject) == 0


async def test_holds_of_other_accounts_are_left_out(subject: Subject) -> None:
    """Accounts share a partition, never a count."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    await admit(subject, asked("r1", line(now_s, 100, 40)))
    for number in range(8):
        other = f"other{number}"
        await hydrate(subject, Counter("requests/hour", now_s, 0), account_id=other)
        assert await subject.limiter.peek(other) == (1, 0, {"requests/hour": (now_s, 0)})


async def test_usage_settled_while_hydrating_makes_it_start_again(subject: Subject) -> None:
    """Between reading the ledger and writing the state nothing may slip: that use would be free."""
    now_s = subject.clock.now_s
    mark = await subject.limiter.flushed_mark(ACCOUNT, 0)
    await subject.limiter.settle(settled(asked("r1", line(now_s, 9)), 1))
    expires_s = now_s + 86_400
    assert not await subject.limiter.hydrate(ACCOUNT, 1, (), expires_s, mark)
    assert await subject.limiter.peek(ACCOUNT) is None
    await subject.take_events()
    mark = await subject.limiter.flushed_mark(ACCOUNT, 0)
    assert await subject.limiter.hydrate(ACCOUNT, 1, (Counter("requests/hour", now_s, 1),), expires_s, mark)
    assert await counts(subject) == {"requests/hour": (now_s, 1)}


async def test_a_version_bumped_while_hydrating_makes_it_start_again(subject: Subject) -> None:
    """A plan that changed after the ledger was read isn't lost: the old version would hold for a minute."""
    mark = await subject.limiter.flushed_mark(ACCOUNT, 0)
    await subject.limiter.bump(ACCOUNT, 2)
    assert not await subject.limiter.hydrate(ACCOUNT, 1, (), subject.clock.now_s + 86_400, mark)
    assert await hydrate(subject, version=2)
    assert await subject.limiter.reserve(asked("r1", version=1)) == Stale(2)


async def test_the_mark_waits_for_the_flusher(subject: Subject) -> None:
    """The ledger is read only once what the stream holds is in it, and never waited for without end."""
    now_s = subject.clock.now_s
    await subject.limiter.settle(settled(asked("r1", line(now_s, 9)), 1))
    with pytest.raises(Fault) as caught:
        await subject.limiter.flushed_mark(ACCOUNT, 0.05)
    assert caught.value.kind is LIMITER_UNAVAILABLE
    waiting = asyncio.ensure_future(subject.limiter.flushed_mark(ACCOUNT, 30))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    await subject.take_events()
    assert await waiting


async def test_an_account_that_is_forgotten_is_rebuilt_with_its_holds(subject: Subject) -> None:
    """A8: counts that lack usage of the ledger are dropped whole; what runs stays held, and is counted once."""
    now_s = subject.clock.now_s
    await hydrate(subject, Counter("requests/hour", now_s, 0))
    await admit(subject, asked("r1", line(now_s, 9)))
    early = await subject.limiter.flushed_mark(ACCOUNT, 0)
    await subject.limiter.forget(ACCOUNT)
    assert isinstance(await subject.limiter.reserve(asked("r2", line(now_s, 9))), Missing)
    assert not await subject.limiter.hydrate(ACCOUNT, 1, (Counter("requests/hour", now_s, 0),), now_s + 86_400, early)

    assert await hydrate(subject, Counter("requests/hour", now_s, 5))
    assert await counts(subject) == {"requests/hour": (now_s, 6)}
