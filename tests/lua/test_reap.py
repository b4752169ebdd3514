"""The scripts of a hold's end as they leave Redis: formats, keys, and what the port alone can't bring about."""

import msgspec

from gateway.domain.decisions import Renewal
from gateway.quota.keys import Keyspace
from gateway.quota.resp import RedisLink
from gateway.quota.scripts import load_script, run
from tests.support.limiters import ACCOUNT, PARTITIONS, Clock, RedisSubject, admit, asked, counts, hydrate, line, told

KEYS = Keyspace("tw", PARTITIONS).of(ACCOUNT)
MARKER = KEYS.marker("r1")

pack = msgspec.msgpack.Encoder().encode


async def held(link: RedisLink) -> RedisSubject:
    """A request whose lease has just ended."""
    subject = RedisSubject(link, Clock())
    now_s = subject.clock.now_s
    await hydrate(subject)
    request = asked("r1", line(now_s, 1000, 900, name="tokens/hour"), about=told("r1", now_s * 1000, 30))
    await admit(subject, request)
    subject.clock.now_us += 60_000_000
    return subject


async def test_a_hold_that_changed_since_it_was_read_is_left_alone(link: RedisLink) -> None:
    """What is charged was worked out from what was read: of another hold it would part counter and ledger."""
    subject = await held(link)
    now_us = subject.clock.now_us
    read = await link.call("HGET", KEYS.holds, "r1")
    await subject.limiter.renew([Renewal("r1", ACCOUNT, 0, told("r1", now_us // 1000, 30, 400))])

    async def reap() -> int:
        reply = await run(link, load_script("reap"), (*KEYS, MARKER), (now_us, pack(["r1", "tokens/hour", 30]), read))
        return int(reply[1])

    assert await reap() == 0
    assert await counts(subject) == {"tokens/hour": (subject.clock.now_s - 60, 900)}
    read = await link.call("HGET", KEYS.holds, "r1")
    assert await reap() == 1


async def test_a_hold_keeps_what_was_asked_through_renewals(link: RedisLink) -> None:
    """A renewal replaces the event alone: the held amounts are what a settlement will give back."""
    subject = await held(link)
    before = msgspec.msgpack.decode(await link.call("HGET", KEYS.holds, "r1"))
    for output_tokens in (1, 70_000, 3):
        about = told("r1", 0, 30, output_tokens)
        await subject.limiter.renew([Renewal("r1", ACCOUNT, 60_000, about)])
        call, event = msgspec.msgpack.decode(await link.call("HGET", KEYS.holds, "r1"))
        assert call == before[0]
        assert pack(event) == pack(about)


async def test_a_window_that_was_moved_keeps_the_event(link: RedisLink) -> None:
    """Where gateways disagree on a window's start, the hold is packed anew by the script, its event with it."""
    subject = RedisSubject(link, Clock())
    now_s = subject.clock.now_s
    await hydrate(subject)
    await admit(subject, asked("r0", line(now_s, 1000, 1, name="tokens/day", length_s=86_400)))
    about = told("r1", now_s * 1000, 30)
    earlier = line(now_s - 3600, 1000, 900, name="tokens/day", length_s=86_400)
    await admit(subject, asked("r1", earlier, about=about))
    call, event = msgspec.msgpack.decode(await link.call("HGET", KEYS.holds, "r1"))
    assert call[5:] == ["tokens/day", now_s, now_s - 3600 + 86_400, 1000, 900]
    assert pack(event) == pack(about)


async def test_a_reaped_request_leaves_a_marker_for_a_day(link: RedisLink) -> None:
    """Every key has its end: a year of crashes leaves what a day leaves."""
    subject = await held(link)
    assert await subject.limiter.reap() == 1
    assert 86_000 < await link.call("TTL", MARKER) <= 86_400
    assert await link.call("EXISTS", KEYS.holds, KEYS.leases) == 0
    assert len(await subject.take_events()) == 1


async def test_holds_that_can_t_be_reaped_are_in_nobody_s_way(link: RedisLink) -> None:
    """More than a page of broken ones, the oldest first in line, and the next account's slots are free all the same."""
    subject = await held(link)
    for number in range(70):
        await link.call("HSET", KEYS.holds, f"bad{number}", b"\xc1 no hold")
        await link.call("ZADD", KEYS.leases, number, f"bad{number}")
    assert await subject.limiter.reap() == 1
    assert await counts(subject) == {"tokens/hour": (subject.clock.now_s - 60, 30)}
    assert await subject.limiter.reap() == 0
    assert await link.call("ZCARD", KEYS.leases) == 70
