"""Both limiters behind one face, so that one suite holds for each; a clock that tests set; builders of calls.

`subject` is parametrised over the in-process model and the scripts on a real server.
"""

import time
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec
import pytest

from gateway.domain.decisions import Admitted, Counter, Line, Reservation, Settlement
from gateway.domain.limits import Remedy
from gateway.domain.usage import CountedBy, Outcome, UsageEvent
from gateway.quota.keys import Keyspace
from gateway.quota.limiter import Limiter
from gateway.quota.memory_limiter import MemoryLimiter
from gateway.quota.redis_limiter import RedisLimiter
from gateway.quota.redis_links import Link, link_of
from gateway.quota.resp import RedisLink
from gateway.quota.usage_stream import RedisUsageStream
from tests.support.valkey import ValkeyServer

ACCOUNT = "acme"
PARTITIONS = 2
LIMITS = ("requests/minute", "requests/hour", "requests/day", "tokens/hour", "tokens/day", "tokens/month")


class Clock:
    """The limiters' "now", in Unix µs. Begins at the start of the next hour, so that no TTL ends while a test runs."""

    def __init__(self) -> None:
        self.now_us = (int(time.time()) // 3600 + 1) * 3_600_000_000

    def __call__(self) -> int:
        """Unix µs."""
        return self.now_us

    @property
    def now_s(self) -> int:
        """Whole seconds."""
        return self.now_us // 1_000_000


class Subject(Protocol):
    """A limiter under test, and what a test does to it from outside."""

    clock: Clock

    @property
    def limiter(self) -> Limiter:
        """What is tested."""
        ...

    async def lose(self, account_id: str) -> None:
        """Drop the account's state, as an eviction would; holds live on."""
        ...

    async def lose_all(self) -> None:
        """Lose all of the one account, its holds and events too, as FLUSHALL would."""
        ...

    async def eras(self) -> tuple[str, ...]:
        """The partitions' eras as they are now."""
        ...

    async def take_events(self) -> list[bytes]:
        """Take all events off the stream, oldest first within an account."""
        ...


class MemorySubject:
    """The in-process model."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.limiter = MemoryLimiter(partitions=PARTITIONS, now_us=clock)

    async def lose(self, account_id: str) -> None:
        """See `Subject`."""
        self.limiter.lose(account_id)

    async def lose_all(self) -> None:
        """See `Subject`."""
        self.limiter.lose_all()

    async def eras(self) -> tuple[str, ...]:
        """See `Subject`."""
        return self.limiter.eras

    async def take_events(self) -> list[bytes]:
        """See `Subject`."""
        events = [event for partition in self.limiter.events.values() for event in partition.values()]
        for partition in self.limiter.events.values():
            partition.clear()
        return events


class RedisSubject:
    """The scripts on a real server or Cluster, over one open link."""

    def __init__(self, link: Link, clock: Clock) -> None:
        self.clock = clock
        self.link = link
        self.limiter = RedisLimiter(link, partitions=PARTITIONS, now_us=clock)
        self.stream = RedisUsageStream(link, "tw", PARTITIONS)

    async def lose(self, account_id: str) -> None:
        """See `Subject`."""
        for partition in range(PARTITIONS):
            await self.link.call("DEL", f"tw:{{{partition}}}:a:{account_id}")

    async def lose_all(self) -> None:
        """See `Subject`. Key by key, as a Cluster has no FLUSHALL for all of it."""
        keys = Keyspace("tw", PARTITIONS).of(ACCOUNT)
        for name in (*keys, keys.era):
            await self.link.call("DEL", name)

    async def eras(self) -> tuple[str, ...]:
        """See `Subject`."""
        everywhere = Keyspace("tw", PARTITIONS).everywhere()
        return tuple([((await self.link.call("GET", keys.era)) or b"").decode() for keys in everywhere])

    async def take_events(self) -> list[bytes]:
        """See `Subject`."""
        entries = await self.stream.read("taker", 10_000)
        await self.stream.done(entries)
        return [entry.payload for entry in entries]


@pytest.fixture
async def link(valkey: ValkeyServer) -> AsyncIterator[RedisLink]:
    """An open link to the worker's empty server."""
    opened = RedisLink(valkey.url, timeout_s=5)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def redis_subject(link: RedisLink) -> RedisSubject:
    """The scripts alone."""
    return RedisSubject(link, Clock())


@pytest.fixture(params=["valkey", "cluster"])
async def any_link(request: pytest.FixtureRequest) -> AsyncIterator[Link]:
    """An open link to an empty server, then one to an empty Cluster."""
    link = link_of(request.getfixturevalue(request.param).url, timeout_s=5)
    await link.open()
    yield link
    await link.close()


@pytest.fixture(params=["memory", "valkey", "cluster"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each limiter in turn. No server is started for the model."""
    if request.param == "memory":
        yield MemorySubject(Clock())
        return
    link = link_of(request.getfixturevalue(request.param).url, timeout_s=5)
    await link.open()
    yield RedisSubject(link, Clock())
    await link.close()


def line(start_s: int, maximum: int, amount: int = 1, *, name: str = "requests/hour", length_s: int = 3600) -> Line:
    """One limit of one request; an hour by default."""
    return Line(name, start_s, start_s + length_s, maximum, amount, Remedy.WAIT)


def asked(
    request_id: str,
    *lines: Line,
    version: int = 1,
    concurrency: int = -1,
    lease_ms: int = 60_000,
    about: UsageEvent | None = None,
) -> Reservation:
    """A reservation of the one account."""
    return Reservation(request_id, ACCOUNT, version, lines, concurrency, lease_ms, about)


def told(
    request_id: str,
    admitted_ms: int,
    input_tokens: int = 0,
    output_tokens: int = 0,
    *,
    requests: int = 1,
    outcome: Outcome = Outcome.REAPED,
) -> UsageEvent:
    """The event of a request of the one account."""
    names = request_id, ACCOUNT, "key", "free", "/v1", "/v1", "m", "main"
    counted = requests, input_tokens, output_tokens
    return UsageEvent(
        *names, admitted_ms, admitted_ms, 200, outcome, CountedBy.ESTIMATE, False, *counted, 0, 0, 50, 10, 0
    )


def settled(
    reservation: Reservation,
    *amounts: int,
    event: bytes = b"event",
    again: bool = False,
    eras: tuple[str, ...] = (),
) -> Settlement:
    """The settlement of a reservation, one true amount a line."""
    true = tuple((line.name, line.start_s, amount) for line, amount in zip(reservation.lines, amounts, strict=True))
    return Settlement(reservation.request_id, reservation.account_id, true, event, again, eras=eras)


def again(settlement: Settlement, eras: tuple[str, ...]) -> Settlement:
    """The same settlement, marked as a repeat, of a request that was admitted in these eras."""
    return msgspec.structs.replace(settlement, again=True, eras=eras)


async def hydrate(subject: Subject, *counters: Counter, version: int = 1, account_id: str = ACCOUNT) -> bool:
    """Give the account its state; without counters, nothing is used of the limits in `LIMITS`."""
    counters = counters or tuple(Counter(name, 0, 0) for name in LIMITS)
    mark = await subject.limiter.flushed_mark(account_id, 0)
    expires_s = subject.clock.now_s + 40 * 86_400
    return await subject.limiter.hydrate(account_id, version, counters, expires_s, mark)


async def admit(subject: Subject, reservation: Reservation) -> Admitted:
    """Reserve what is known to fit."""
    decision = await subject.limiter.reserve(reservation)
    assert isinstance(decision, Admitted), decision
    return decision


async def counts(subject: Subject) -> dict[str, tuple[int, int]]:
    """The account's live counters by limit name, window start and used, of the limits that were ever asked for."""
    state = await subject.limiter.peek(ACCOUNT)
    assert state is not None
    return {name: counter for name, counter in state[2].items() if counter[0]}


async def running(subject: Subject) -> int:
    """The account's running requests."""
    state = await subject.limiter.peek(ACCOUNT)
    assert state is not None
    return state[1]
