"""What any limiter promises of holds whose gateway died: settled once, at what was last told, and free again."""

import asyncio

import msgspec
import pytest

from gateway.domain.decisions import Counter, Refused, Renewal, Reservation, Settlement
from gateway.domain.usage import Outcome, UsageEvent
from tests.support.limiters import (
    ACCOUNT,
    Subject,
    admit,
    again,
    asked,
    counts,
    hydrate,
    line,
    running,
    settled,
    told,
)

HOUR_S = 3600
LEASE_MS = 60_000
LEASE_US = LEASE_MS * 1000

pack = msgspec.msgpack.Encoder().encode


async def died(subject: Subject) -> Reservation:
    """A request that was admitted, and whose lease has ended."""
    request = await ran(subject)
    subject.clock.now_us += LEASE_US
    return request


async def ran(subject: Subject, request_id: str = "r1") -> Reservation:
    """A request that was admitted: 900 tokens held, 30 of them in."""
    now_s = subject.clock.now_s
    request = asked(
        request_id,
        line(now_s, 100_000),
        line(now_s, 1_000_000, 900, name="tokens/day", length_s=24 * HOUR_S),
        about=told(request_id, now_s * 1000, 30),
    )
    await admit(subject, request)
    return request


async def ran_over(subject: Subject) -> Reservation:
    """A request whose hour is over; in the next one, 2500 tokens are held."""
    now_s = subject.clock.now_s
    request = asked("r1", line(now_s, 1000, 900, name="tokens/hour"), about=told("r1", now_s * 1000, 30))
    await admit(subject, request)
    subject.clock.now_us += HOUR_S * 1_000_000
    await admit(subject, asked("new", line(now_s + HOUR_S, 5000, 2500, name="tokens/hour")))
    return request


async def events(subject: Subject) -> list[UsageEvent]:
    """What has come onto the stream, read."""
    return [msgspec.msgpack.decode(event, type=UsageEvent) for event in await subject.take_events()]


async def used(subject: Subject) -> dict[str, int]:
    """The live counts by limit name."""
    return {name: count for name, (_, count) in (await counts(subject)).items()}


def true(request: Reservation, tokens: int, *, requests: int = 1) -> Settlement:
    """The settlement of a request whose upstream counted 10 in and the rest out."""
    about = request.about
    assert about is not None
    event = told(
        request.request_id, about.admitted_ms + 5, 10, tokens - 10, requests=requests, outcome=Outcome.CLIENT_GONE
    )
    return settled(request, requests, tokens, event=pack(event))


async def test_what_a_dead_gateway_held_is_charged_as_told(subject: Subject) -> None:
    """Neither free nor at the full estimate: the input was read, and what else was used nobody knows (A8)."""
    await hydrate(subject)
    request = await died(subject)
    assert await subject.limiter.reap() == 1
    assert await used(subject) == {"requests/hour": 1, "tokens/day": 30}
    assert await running(subject) == 0
    assert await events(subject) == [request.about]


async def test_a_hold_is_reaped_at_its_leases_end_and_not_before(subject: Subject) -> None:
    """Whoever still runs has the whole lease to say so; whoever died is out of the way at its end."""
    await hydrate(subject)
    await died(subject)
    subject.clock.now_us -= 1
    assert await subject.limiter.reap() == 0
    assert await used(subject) == {"requests/hour": 1, "tokens/day": 900}
    subject.clock.now_us += 1
    assert await subject.limiter.reap() == 1


async def test_a_hold_is_reaped_once(subject: Subject) -> None:
    """Every worker reaps: together they charge a dead request once."""
    await hydrate(subject)
    for number in range(20):
        await ran(subject, f"r{number}")
    subject.clock.now_us += LEASE_US
    reaped = await asyncio.gather(*[subject.limiter.reap() for _ in range(8)])
    assert sum(reaped) == 20
    assert await used(subject) == {"requests/hour": 20, "tokens/day": 600}
    assert len(await events(subject)) == 20


async def test_more_than_one_page_is_reaped_in_one_go(subject: Subject) -> None:
    """A worker with hundreds of streams dies: its callers get their slots back together."""
    await hydrate(subject)
    await asyncio.gather(*[ran(subject, f"r{number}") for number in range(200)])
    subject.clock.now_us += LEASE_US
    assert await subject.limiter.reap() == 200
    assert await running(subject) == 0
    assert len(await events(subject)) == 200


async def test_a_reaped_slot_is_free(subject: Subject) -> None:
    """A crash must not lock an account with a concurrency limit out: it did, for ever."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    await admit(subject, asked("r1", line(now_s, 9), concurrency=1, about=told("r1", now_s * 1000)))
    assert isinstance(await subject.limiter.reserve(asked("r2", line(now_s, 9), concurrency=1)), Refused)
    subject.clock.now_us += LEASE_US
    await subject.limiter.reap()
    assert (await admit(subject, asked("r3", line(now_s, 9), concurrency=1))).running == 1


async def test_without_an_event_all_stays_as_held(subject: Subject) -> None:
    """An amount nobody knows is never refunded, as when a settlement leaves a line out."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    await admit(subject, asked("r1", line(now_s, 99, 7)))
    subject.clock.now_us += LEASE_US
    assert await subject.limiter.reap() == 1
    assert await used(subject) == {"requests/hour": 7}
    assert await running(subject) == 0
    assert await subject.take_events() == []


async def test_a_reap_after_the_roll_leaves_the_new_window_alone(subject: Subject) -> None:
    """What a dead request held an hour ago is neither charged to this hour nor given back from it."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    await ran_over(subject)
    assert await subject.limiter.reap() == 1
    assert await counts(subject) == {"tokens/hour": (now_s + HOUR_S, 2500)}
    assert await running(subject) == 1


async def test_a_reap_without_state_makes_a_hydration_start_again(subject: Subject) -> None:
    """An event that lands between the ledger's reading and the state's writing isn't lost on the counters."""
    await hydrate(subject)
    await died(subject)
    await subject.lose(ACCOUNT)
    mark = await subject.limiter.flushed_mark(ACCOUNT, 0)
    assert await subject.limiter.reap() == 1
    assert not await subject.limiter.hydrate(ACCOUNT, 1, (), subject.clock.now_s + 86_400, mark)
    assert [event.request_id for event in await events(subject)] == ["r1"]


async def test_a_hold_that_a_hydration_counted_in_is_reaped(subject: Subject) -> None:
    """A rebuilt account is not burdened for ever by those who died before."""
    await hydrate(subject)
    request = await died(subject)
    await subject.lose(ACCOUNT)
    await hydrate(subject, *[Counter(each.name, each.start_s, 100) for each in request.lines])
    assert await used(subject) == {"requests/hour": 101, "tokens/day": 1000}
    assert await subject.limiter.reap() == 1
    assert await used(subject) == {"requests/hour": 101, "tokens/day": 130}
    assert await running(subject) == 0


async def test_a_sign_of_life_keeps_a_hold_and_what_was_counted(subject: Subject) -> None:
    """A stream longer than its lease is not cut off from its hold; if it dies later, what came till then is charged."""
    await hydrate(subject)
    await died(subject)
    told_since = told("r1", subject.clock.now_s * 1000, 30, 400)
    await subject.limiter.renew([Renewal("r1", ACCOUNT, LEASE_MS, told_since)])
    assert await subject.limiter.reap() == 0
    assert await used(subject) == {"requests/hour": 1, "tokens/day": 900}
    subject.clock.now_us += LEASE_US
    assert await subject.limiter.reap() == 1
    assert await used(subject) == {"requests/hour": 1, "tokens/day": 430}
    assert await events(subject) == [told_since]


async def test_a_renewal_never_shortens_a_lease(subject: Subject) -> None:
    """A clock set back, or an older sign of life that arrives late, costs no running request its hold."""
    await hydrate(subject)
    request = await died(subject)
    assert request.about is not None
    subject.clock.now_us -= LEASE_US
    await subject.limiter.renew([Renewal("r1", ACCOUNT, 1, request.about)])
    subject.clock.now_us += LEASE_US - 1
    assert await subject.limiter.reap() == 0


@pytest.mark.parametrize("ended_by", ["reap", "settle"])
async def test_a_renewal_makes_no_hold_again(subject: Subject, ended_by: str) -> None:
    """A sign of life that crosses the end leaves no hold behind that would be charged once more."""
    await hydrate(subject)
    request = await died(subject)
    if ended_by == "reap":
        await subject.limiter.reap()
    else:
        await subject.limiter.settle(true(request, 50))
    before = await subject.limiter.peek(ACCOUNT)
    assert request.about is not None
    await subject.limiter.renew([Renewal("r1", ACCOUNT, LEASE_MS, request.about)])
    subject.clock.now_us += 10 * LEASE_US
    assert await subject.limiter.reap() == 0
    assert await subject.limiter.peek(ACCOUNT) == before


@pytest.mark.parametrize("tokens", [10, 30, 500])
async def test_a_late_settlement_corrects_what_the_reap_charged(subject: Subject, tokens: int) -> None:
    """A worker that stood still and comes back bills the truth, in two events that add up to it (A8)."""
    await hydrate(subject)
    request = await died(subject)
    await subject.limiter.reap()
    await subject.limiter.settle(true(request, tokens))
    assert await used(subject) == {"requests/hour": 1, "tokens/day": tokens}
    assert await running(subject) == 0
    first, late = await events(subject)
    assert (first, late.request_id) == (request.about, "r1/late")
    assert (first.requests, late.requests) == (1, 0)
    assert (first.input_tokens + late.input_tokens, first.output_tokens + late.output_tokens) == (10, tokens - 10)
    assert late.estimated_tokens == late.request_bytes == 0
    assert late.admitted_ms == first.admitted_ms, "the window that was charged"
    assert late.outcome is Outcome.CLIENT_GONE


async def test_a_late_settlement_corrects_once(subject: Subject) -> None:
    """Sent again after an unclear time-out, it moves no counter and adds nothing to the ledger."""
    await hydrate(subject)
    request = await died(subject)
    await subject.limiter.reap()
    await subject.limiter.settle(true(request, 500))
    first = await events(subject)
    await subject.limiter.settle(again(true(request, 500), await subject.eras()))
    assert await used(subject) == {"requests/hour": 1, "tokens/day": 500}
    assert {event.request_id for event in await events(subject)} <= {event.request_id for event in first}


async def test_a_late_give_back_takes_all_back(subject: Subject) -> None:
    """A request that turns out never to have run costs nothing, though it was reaped as one that did."""
    await hydrate(subject)
    request = await died(subject)
    await subject.limiter.reap()
    await subject.limiter.settle(settled(request, 0, 0, event=b"", again=True))
    assert await used(subject) == {"requests/hour": 0, "tokens/day": 0}
    first, late = await events(subject)
    assert first.requests + late.requests == first.input_tokens + late.input_tokens == 0


async def test_a_late_settlement_after_the_roll_leaves_the_new_window_alone(subject: Subject) -> None:
    """The difference belongs to the window of admission, in the ledger alone once that is over."""
    now_s = subject.clock.now_s
    await hydrate(subject)
    request = await ran_over(subject)
    await subject.limiter.reap()
    late = told("r1", now_s * 1000, 10, 490)
    await subject.limiter.settle(settled(request, 500, event=pack(late)))
    assert await counts(subject) == {"tokens/hour": (now_s + HOUR_S, 2500)}
    assert sum(event.input_tokens + event.output_tokens for event in await events(subject)) == 500


async def test_a_late_settlement_without_state_makes_a_hydration_start_again(subject: Subject) -> None:
    """Its event counts in the rebuilt account, whenever that is rebuilt."""
    await hydrate(subject)
    request = await died(subject)
    await subject.limiter.reap()
    await subject.take_events()
    await subject.lose(ACCOUNT)
    mark = await subject.limiter.flushed_mark(ACCOUNT, 0)
    await subject.limiter.settle(true(request, 500))
    assert not await subject.limiter.hydrate(ACCOUNT, 1, (), subject.clock.now_s + 86_400, mark)
    assert [event.request_id for event in await events(subject)] == ["r1/late"]


async def test_reaps_and_settlements_that_cross_add_up(subject: Subject) -> None:
    """Whichever comes first for each request, its events come to what was used, and so do the counters."""
    await hydrate(subject)
    requests = [await ran(subject, f"r{number}") for number in range(150)]
    subject.clock.now_us += LEASE_US
    half = len(requests) // 2
    await asyncio.gather(
        *[subject.limiter.settle(true(request, 50)) for request in requests[:half]],
        subject.limiter.reap(),
        *[subject.limiter.settle(true(request, 50)) for request in requests[half:]],
    )
    assert await used(subject) == {"requests/hour": 150, "tokens/day": 150 * 50}
    assert await running(subject) == 0
    there = await events(subject)
    assert sum(event.requests for event in there) == 150
    assert sum(event.input_tokens + event.output_tokens for event in there) == 150 * 50
