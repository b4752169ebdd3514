"""What any limiter promises of `settle`: the hold gives way to the truth, once, in its own window, with its event."""

import asyncio

from gateway.domain.decisions import Refused
from tests.support.limiters import Subject, admit, again, asked, counts, hydrate, line, running, settled

HOUR_S = 3600


async def test_the_rest_of_an_estimate_is_given_back(subject: Subject) -> None:
    """Only what was used stays counted: an estimate kept would cost callers the tokens they never got (A8)."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    request = asked("r1", line(now_s, 5), line(now_s, 1000, 900, name="tokens/day", length_s=86_400))
    await admit(subject, request)
    await subject.limiter.settle(settled(request, 1, 120))
    assert await counts(subject) == {"requests/hour": (now_s, 1), "tokens/day": (now_s, 120)}
    assert await running(subject) == 0


async def test_an_overrun_is_charged(subject: Subject) -> None:
    """What ran past its estimate is owed inside the window, even past the limit: never forgiven."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    request = asked("r1", line(now_s, 100, 80))
    await admit(subject, request)
    await subject.limiter.settle(settled(request, 150))
    assert await counts(subject) == {"requests/hour": (now_s, 150)}
    assert isinstance(await subject.limiter.reserve(asked("r2", line(now_s, 100, 0))), Refused)


async def test_a_settlement_repeated_moves_nothing(subject: Subject) -> None:
    """A retry after an unclear time-out charges once; the second event has the same id, which the ledger takes once."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    first, second = asked("r1", line(now_s, 100, 50)), asked("r2", line(now_s, 100, 50))
    await admit(subject, first)
    await admit(subject, second)
    await subject.limiter.settle(settled(first, 10))
    await subject.limiter.settle(again(settled(first, 10), await subject.eras()))
    assert await counts(subject) == {"requests/hour": (now_s, 60)}
    assert await running(subject) == 1


async def test_every_settlement_leaves_its_event(subject: Subject) -> None:
    """Counters and the event move in one step: what was counted is billed, hold or no hold."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    request = asked("r1", line(now_s, 5))
    await admit(subject, request)
    await subject.limiter.settle(settled(request, 1, event=b"\x00first"))
    await subject.limiter.settle(settled(asked("r2", line(now_s, 5)), 1, event=b"second"))
    assert await subject.take_events() == [b"\x00first", b"second"]
    assert await subject.take_events() == []


async def test_a_settlement_after_the_roll_leaves_the_new_window_alone(subject: Subject) -> None:
    """A long stream that ends past the hour isn't charged to the hour it ends in, nor refunded into it."""
    start_s = subject.clock.now_s
    await hydrate(subject)
    old = asked("old", line(start_s, 100, 60))
    await admit(subject, old)
    subject.clock.now_us += HOUR_S * 1_000_000
    await admit(subject, asked("new", line(start_s + HOUR_S, 100, 25)))
    await subject.limiter.settle(settled(old, 5))
    assert await counts(subject) == {"requests/hour": (start_s + HOUR_S, 25)}
    assert await running(subject) == 1


async def test_without_its_hold_a_settlement_is_charged_in_full(subject: Subject) -> None:
    """Where the limiter lost its memory while a request ran, its use still counts against the limit."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    await admit(subject, asked("r1", line(now_s, 100, 1)))
    await subject.limiter.settle(settled(asked("lost2", line(now_s, 100, 50)), 30))
    await subject.limiter.settle(settled(asked("lost3", line(now_s - HOUR_S, 100, 50)), 30))
    assert await counts(subject) == {"requests/hour": (now_s, 31)}
    assert await running(subject) == 1


async def test_a_repeat_without_a_hold_moves_nothing(subject: Subject) -> None:
    """A repeat is taken for settled before: charging it would bill one answer twice."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    await admit(subject, asked("r1", line(now_s, 100, 1)))
    gone = settled(asked("gone", line(now_s, 100, 50)), 30)
    await subject.limiter.settle(again(gone, await subject.eras()))
    assert await counts(subject) == {"requests/hour": (now_s, 1)}
    assert len(await subject.take_events()) == 1


async def test_an_empty_event_gives_the_hold_back_without_a_trace(subject: Subject) -> None:
    """A request that never ran costs nothing and isn't billed."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    request = asked("r1", line(now_s, 100, 50))
    await admit(subject, request)
    await subject.limiter.settle(settled(request, 0, event=b"", again=True))
    assert await counts(subject) == {"requests/hour": (now_s, 0)}
    assert await running(subject) == 0
    assert await subject.take_events() == []


async def test_a_line_the_settlement_leaves_out_stays_as_held(subject: Subject) -> None:
    """An amount nobody knows is never refunded: unknown use stays at its estimate."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    request = asked("r1", line(now_s, 9), line(now_s, 1000, 40, name="tokens/hour"))
    await admit(subject, request)
    await subject.limiter.settle(settled(asked("r1", line(now_s, 9)), 1))
    assert await counts(subject) == {"requests/hour": (now_s, 1), "tokens/hour": (now_s, 40)}


async def test_a_count_never_falls_below_zero(subject: Subject) -> None:
    """A state that was hydrated from less than was held gives no credit when the hold is settled."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    request = asked("r1", line(now_s, 100, 50))
    await admit(subject, request)
    await subject.limiter.settle(settled(request, -70))
    assert await counts(subject) == {"requests/hour": (now_s, 0)}


async def test_many_at_once_settle_to_the_sum(subject: Subject) -> None:
    """Sums are exact however requests interleave: Σ of settled use = the counter (A8)."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    requests = [asked(f"r{number}", line(now_s, 100_000, 50)) for number in range(200)]
    await asyncio.gather(*[subject.limiter.reserve(request) for request in requests])
    await asyncio.gather(*[subject.limiter.settle(settled(each, use)) for use, each in enumerate(requests)])
    assert await counts(subject) == {"requests/hour": (now_s, sum(range(200)))}
    assert await running(subject) == 0
    assert len(await subject.take_events()) == 200
