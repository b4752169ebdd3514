"""Journal entries on a real server: each counts once, whatever Redis knew of its request, however often it is sent."""

import msgspec
import pytest

from gateway.domain.decisions import Counter, Reservation
from gateway.domain.usage import Outcome, UsageEvent
from gateway.quota.breaker import Breaker
from gateway.quota.journal_segment import JournalEntry, Kind
from gateway.quota.keys import Keyspace, era_of
from gateway.quota.redis_replay import Numbered, RedisReplay
from tests.support.limiters import (
    ACCOUNT,
    PARTITIONS,
    RedisSubject,
    admit,
    asked,
    counts,
    hydrate,
    line,
    running,
    settled,
    told,
)

LINE = "tokens/hour"


class Replayed:
    """A subject, and journal entries of one request of it."""

    def __init__(self, subject: RedisSubject) -> None:
        self.subject = subject
        self.start_s = subject.clock.now_s
        self.era = ""
        breaker: Breaker = subject.limiter.breaker
        self.replay = RedisReplay(subject.link, Keyspace("tw", PARTITIONS), breaker, subject.clock)

    @property
    def reservation(self) -> Reservation:
        """40 tokens of the hour."""
        about = told("r1", self.subject.clock.now_us // 1000, 10)
        return asked("r1", line(self.start_s, 1000, 40, name=LINE), about=about, lease_ms=60_000)

    def entry(self, kind: Kind, tokens: int = 13) -> JournalEntry:
        """The request used so much."""
        now_ms = self.subject.clock.now_us // 1000
        event = msgspec.msgpack.encode(told("r1", now_ms, tokens, outcome=Outcome.OK))
        return JournalEntry(kind, "r1", ACCOUNT, now_ms, ((LINE, self.start_s, tokens),), event, self.era)

    async def send(self, entry: JournalEntry, *, again: bool = False, segment: str = "s", number: int = 0) -> None:
        """Replay one entry."""
        assert await self.replay.settle([Numbered(entry, segment, number, again)]) == []

    async def tokens(self) -> tuple[int, int]:
        """What the counter has, and the sum of what the ledger would have: it takes each id once."""
        events: dict[str, UsageEvent] = {}
        for payload in await self.subject.take_events():
            event = msgspec.msgpack.decode(payload, type=UsageEvent)
            events.setdefault(event.request_id, event)
        used = (await counts(self.subject)).get(LINE, (0, 0))[1]
        return used, sum(event.input_tokens for event in events.values())


@pytest.fixture
async def replayed(redis_subject: RedisSubject) -> Replayed:
    """The account's state is there; its window runs."""
    here = Replayed(redis_subject)
    await hydrate(redis_subject, Counter(LINE, here.start_s, 0))
    here.era = era_of(await redis_subject.eras(), ACCOUNT)
    return here


@pytest.mark.parametrize("again", [False, True])
async def test_an_entry_counts_once_however_often_it_is_sent(replayed: Replayed, again: bool) -> None:
    """D6: a kill in the middle of a replay sends all of it again; nobody is charged twice."""
    for attempt in range(3):
        await replayed.send(replayed.entry(Kind.SETTLED), again=again or attempt > 0)
    assert await replayed.tokens() == (13, 13)


async def test_entries_of_one_segment_are_told_apart(replayed: Replayed) -> None:
    """The mark of one entry hides no other one: neither of its segment nor of another."""
    for segment, number in (("s", 0), ("s", 1), ("t", 0), ("s", 70_000)):
        await replayed.send(replayed.entry(Kind.SETTLED), segment=segment, number=number)
    assert (await replayed.tokens())[0] == 4 * 13


async def test_what_an_ambiguous_reserve_took_is_replaced(replayed: Replayed) -> None:
    """A reservation that timed out and was taken all the same, of a request then admitted without Redis: its settlement
    ends the hold, and neither the estimate nor the running slot stays.
    """  # noqa: D205
    await admit(replayed.subject, replayed.reservation)
    await replayed.send(replayed.entry(Kind.SETTLED))
    assert await replayed.tokens() == (13, 13)
    assert await running(replayed.subject) == 0


async def test_what_was_reaped_meanwhile_is_corrected_once(replayed: Replayed) -> None:
    """The same, after its hold was reaped for want of a sign of life: both events add up to the truth."""
    await admit(replayed.subject, replayed.reservation)
    replayed.subject.clock.now_us += 61_000_000
    assert await replayed.subject.limiter.reap() == 1
    for attempt in range(3):
        await replayed.send(replayed.entry(Kind.SETTLED), again=attempt > 0)
    assert await replayed.tokens() == (13, 13)


@pytest.mark.parametrize("taken", [True, False])
async def test_a_settlement_that_may_have_been_taken(replayed: Replayed, taken: bool) -> None:
    """Redis admitted it, and the answer to its settlement was never heard: taken or not, it counts once."""
    await admit(replayed.subject, replayed.reservation)
    entry = replayed.entry(Kind.REPEATED)
    if taken:
        await replayed.subject.limiter.settle(settled(replayed.reservation, 13, event=entry.event))
    for attempt in range(2):
        await replayed.send(entry, again=attempt > 0)
    assert await replayed.tokens() == (13, 13)
    assert await running(replayed.subject) == 0


@pytest.mark.parametrize("flushed", [True, False])
async def test_a_rebuilt_state_is_left_to_the_ledger(replayed: Replayed, flushed: bool) -> None:
    """Redis lost its memory, bits included, and was rebuilt from the ledger, which may have the event or not: an entry
    that may have been sent before drops the state, so that the next hydration counts it once either way; also where the
    clock has stepped back meanwhile.
    """  # noqa: D205
    entry = replayed.entry(Kind.SETTLED)
    replayed.subject.clock.now_us -= 1_000_000
    await replayed.subject.link.call("FLUSHALL")
    await hydrate(replayed.subject, Counter(LINE, replayed.start_s, 13 if flushed else 0))
    await replayed.send(entry, again=True)
    assert await replayed.subject.limiter.peek(ACCOUNT) is None
    assert len(await replayed.subject.take_events()) == 1


async def test_an_entry_that_redis_refuses_is_told_and_holds_up_none(replayed: Replayed) -> None:
    """D6: an entry of an account whose state can't be read, by a mistake, is named; those sent with it count."""
    subject = replayed.subject
    await subject.link.call("SET", Keyspace("tw", PARTITIONS).of("broken").account, "a text")
    broken = msgspec.structs.replace(replayed.entry(Kind.SETTLED), request_id="r0", account_id="broken")
    entries = [Numbered(broken, "s", 1, again=False), Numbered(replayed.entry(Kind.SETTLED), "s", 0, again=False)]
    (poison,) = await replayed.replay.settle(entries)
    assert poison.one.entry.request_id == "r0"
    assert "WRONGTYPE" in poison.reason
    assert await replayed.tokens() == (13, 13)


@pytest.mark.parametrize("back_us", [0, 2_000_000])
async def test_usage_of_a_window_that_begins_later_is_left_to_the_ledger(replayed: Replayed, back_us: int) -> None:
    """A8: an account that was rebuilt in an earlier window than an entry's, as the clock stepped back, is rebuilt again
    in the window that had begun.
    """  # noqa: D205
    entry = replayed.entry(Kind.SETTLED)
    replayed.subject.clock.now_us -= back_us
    await replayed.subject.lose(ACCOUNT)
    await hydrate(replayed.subject, Counter(LINE, replayed.start_s - 3600 * bool(back_us), 0))
    await replayed.send(entry)
    assert (await replayed.subject.limiter.peek(ACCOUNT) is None) is bool(back_us)
    assert len(await replayed.subject.take_events()) == 1


async def test_a_window_that_is_over_is_left_alone(replayed: Replayed) -> None:
    """Usage of the last hour that is replayed in this one is billed, and takes nothing of this hour's limit."""
    entry = replayed.entry(Kind.SETTLED)
    replayed.subject.clock.now_us += 3_600_000_000
    now_s = replayed.subject.clock.now_s
    later = asked("r2", line(now_s, 1000, 5, name=LINE))
    await admit(replayed.subject, later)
    await replayed.send(entry)
    assert await replayed.tokens() == (5, 13)


async def test_a_missing_account_is_marked(replayed: Replayed) -> None:
    """An account whose state is gone gets no state of one request alone: a hydration under way starts again."""
    mark = await replayed.subject.limiter.flushed_mark(ACCOUNT, 0)
    await replayed.subject.lose(ACCOUNT)
    await replayed.send(replayed.entry(Kind.SETTLED))
    assert await replayed.subject.limiter.peek(ACCOUNT) is None
    assert not await replayed.subject.limiter.hydrate(ACCOUNT, 1, (), replayed.start_s + 9999, mark)
