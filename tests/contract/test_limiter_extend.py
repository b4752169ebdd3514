"""What any limiter promises of requests that run past what they hold (row B5): more is held of every line, or nothing
is; the window held in alone is touched; and what ends the request later sees all that was held.
"""  # noqa: D205

import asyncio

import pytest

from gateway.domain.decisions import Counter, Extension, Extent, Line, Renewal, Reservation
from tests.support.limiters import (
    ACCOUNT,
    RedisSubject,
    Subject,
    admit,
    asked,
    counts,
    hydrate,
    line,
    running,
    settled,
    told,
)

HOUR_S = 3600


def tokens(start_s: int, amount: int, maximum: int = 1000, window: str = "hour") -> Line:
    """One limit on tokens."""
    return line(start_s, maximum, amount, name=f"tokens/{window}", length_s=HOUR_S if window == "hour" else 24 * HOUR_S)


async def ran(subject: Subject, *, tokens_day: int = 1000) -> Reservation:
    """A request that holds 100 tokens of an hour's 1000, and of the day's."""
    now_s = subject.clock.now_s
    lines = line(now_s, 5), tokens(now_s, 100), tokens(now_s, 100, tokens_day, "day")
    request = asked("r1", *lines, about=told("r1", now_s * 1000, 30))
    await hydrate(subject)
    await admit(subject, request)
    return request


def to(request: Reservation, amount: int) -> Extension:
    """Hold `amount` tokens in all."""
    lines = [
        Line(held.name, held.start_s, held.end_s, held.maximum, amount if "tokens" in held.name else held.amount)
        for held in request.lines
    ]
    return Extension(request.request_id, request.account_id, tuple(lines))


async def used(subject: Subject, name: str = "tokens/hour") -> int:
    """What is used and held of a limit."""
    return (await counts(subject))[name][1]


async def test_an_extension_is_held_and_settled_away(subject: Subject) -> None:
    """The count rises at once, for every gateway to see, and the settlement replaces all that was held: a stream that
    outran its estimate pays what it used, once.
    """  # noqa: D205
    request = await ran(subject)

    assert await subject.limiter.extend(to(request, 356)) is Extent.EXTENDED
    assert (await used(subject), await used(subject, "tokens/day"), await used(subject, "requests/hour")) == (
        356,
        356,
        1,
    )
    assert await running(subject) == 1

    await subject.limiter.settle(settled(request, 1, 300, 300))
    assert (await used(subject), await used(subject, "tokens/day")) == (300, 300)


async def test_a_refused_extension_takes_nothing(subject: Subject) -> None:
    """All lines or none: a day that is full leaves the hour as it was, and the hold with it."""
    request = await ran(subject, tokens_day=300)

    assert await subject.limiter.extend(to(request, 301)) is Extent.REFUSED
    assert (await used(subject), await used(subject, "tokens/day")) == (100, 100)
    assert await subject.limiter.extend(to(request, 300)) is Extent.EXTENDED

    await subject.limiter.settle(settled(request, 1, 40, 40))
    assert (await used(subject), await used(subject, "tokens/day")) == (40, 40)


async def test_asking_twice_holds_nothing_twice(subject: Subject) -> None:
    """After a time-out nobody knows whether Redis took it: the same slice again is the same slice."""
    request = await ran(subject)
    for _ in range(3):
        assert await subject.limiter.extend(to(request, 400)) is Extent.EXTENDED
    assert await subject.limiter.extend(to(request, 200)) is Extent.EXTENDED
    assert await used(subject) == 400


async def test_an_extension_never_lands_in_another_window(subject: Subject) -> None:
    """A stream over the full hour: what it uses belongs to the hour of its admission, and the new hour's allowance is
    the next requests' own. The day still runs, and is held.
    """  # noqa: D205
    request = await ran(subject)
    now_s = subject.clock.now_s
    subject.clock.now_us += HOUR_S * 1_000_000
    await admit(subject, asked("r2", tokens(now_s + HOUR_S, 900)))

    assert await subject.limiter.extend(to(request, 500)) is Extent.EXTENDED
    assert (await used(subject), await used(subject, "tokens/day")) == (900, 500)

    await subject.limiter.settle(settled(request, 1, 500, 500))
    assert (await used(subject), await used(subject, "tokens/day")) == (900, 500)


async def test_a_reap_takes_the_extension_with_the_hold(subject: Subject) -> None:
    """The gateway died: what was last told is charged, and no slice stays held for ever."""
    request = await ran(subject)
    await subject.limiter.extend(to(request, 400))
    subject.clock.now_us += 60_000_000

    assert await subject.limiter.reap() == 1
    assert (await used(subject), await running(subject)) == (30, 0)
    assert await subject.limiter.extend(to(request, 500)) is Extent.GONE
    assert await used(subject) == 30


@pytest.mark.parametrize("settle_first", [True, False])
async def test_what_has_no_hold_is_not_made_one(subject: Subject, settle_first: bool) -> None:
    """An extension that comes after the settlement, or of a request nobody knows, holds nothing."""
    request = await ran(subject)
    if settle_first:
        await subject.limiter.settle(settled(request, 1, 50, 50))
        assert await subject.limiter.extend(to(request, 400)) is Extent.GONE
        assert await used(subject) == 50
    else:
        assert await subject.limiter.extend(Extension("r9", ACCOUNT, to(request, 400).lines)) is Extent.GONE
        assert await used(subject) == 100


async def test_a_lost_state_is_asked_for_and_counts_the_slices(subject: Subject) -> None:
    """Redis dropped the account while the stream ran: it is rebuilt with all that is held, slices included."""
    request = await ran(subject)
    await subject.limiter.extend(to(request, 400))
    await subject.lose(ACCOUNT)
    assert await subject.limiter.extend(to(request, 500)) is Extent.MISSING

    start_s = request.lines[0].start_s
    await hydrate(subject, *(Counter(name, start_s, 0) for name in ("requests/hour", "tokens/hour", "tokens/day")))
    assert await used(subject) == 400
    assert await subject.limiter.extend(to(request, 500)) is Extent.EXTENDED
    assert await used(subject) == 500


async def test_a_renewed_hold_keeps_its_slices(subject: Subject) -> None:
    """Both are written into the hold, by different calls."""
    request = await ran(subject)
    await subject.limiter.extend(to(request, 400))
    await subject.limiter.renew([Renewal("r1", ACCOUNT, 60_000, told("r1", request.lines[0].start_s * 1000, 60))])
    await subject.limiter.extend(to(request, 500))
    subject.clock.now_us += 60_000_000
    await subject.limiter.reap()
    assert await used(subject) == 60


async def test_racing_extensions_never_pass_a_limit(redis_subject: RedisSubject) -> None:
    """Fifty streams ask at the same time for what ten can have: ten get it."""
    now_s = redis_subject.clock.now_s
    await hydrate(redis_subject)
    requests = [asked(f"r{number}", tokens(now_s, 10)) for number in range(50)]
    for request in requests:
        await admit(redis_subject, request)

    extents = await asyncio.gather(*[redis_subject.limiter.extend(to(request, 60)) for request in requests])

    assert extents.count(Extent.EXTENDED) == 10
    assert await used(redis_subject) == 1000
