"""Counters and ledger say the same of every window, however gateways die, freeze and come back."""

import asyncio

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck, given, settings

from gateway.domain.decisions import Admitted, Counter, Renewal, Reservation
from gateway.domain.usage import UsageEvent
from gateway.quota.resp import RedisLink
from tests.support.limiters import (
    ACCOUNT,
    Clock,
    MemorySubject,
    RedisSubject,
    Subject,
    again,
    asked,
    hydrate,
    line,
    settled,
    told,
)
from tests.support.valkey import ValkeyServer

LEASE_MS = 40_000
WINDOWS_S = {"requests/minute": 60, "tokens/hour": 3600}

moves = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "wait", "reap", "renew", "settle", "again", "drop"]), st.integers(0, 40)),
    min_size=8,
    max_size=60,
)


class Story:
    """One run: what was asked, what was settled, and the ledger that takes each event id once."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.live: list[Reservation] = []
        self.over: list[tuple[Reservation, int]] = []
        self.ledger: dict[str, UsageEvent] = {}
        self.true: dict[str, tuple[int, int]] = {}
        self.asked = 0

    async def move(self, kind: str, number: int) -> None:
        """One thing that happens."""
        limiter = self.subject.limiter
        if kind == "ask":
            await self.ask(number)
        elif kind == "wait":
            self.subject.clock.now_us += number * 1_000_000
        elif kind == "reap":
            await limiter.reap()
        elif kind == "renew" and self.live:
            await self.renew(self.live[number % len(self.live)], number)
        elif kind in {"settle", "drop"} and self.live:
            await self.settle(self.live.pop(number % len(self.live)), number if kind == "settle" else None)
        elif kind == "again" and self.over:
            request, tokens = self.over[number % len(self.over)]
            repeat = settled(request, 1, tokens, event=self.event(request, tokens))
            await limiter.settle(again(repeat, await self.subject.eras()))
        for event in await self.subject.take_events():
            read = msgspec.msgpack.decode(event, type=UsageEvent)
            self.ledger.setdefault(read.request_id, read)

    async def ask(self, input_tokens: int) -> None:
        """A request in the windows that run now."""
        now_s = self.subject.clock.now_s
        self.asked += 1
        lines = [
            line(
                now_s - now_s % length_s, 10**6, 1 if name.startswith("requests") else 90, name=name, length_s=length_s
            )
            for name, length_s in WINDOWS_S.items()
        ]
        about = told(f"r{self.asked}", now_s * 1000, input_tokens)
        request = asked(about.request_id, *lines, lease_ms=LEASE_MS, about=about)
        assert isinstance(await self.subject.limiter.reserve(request), Admitted)
        self.live.append(request)

    async def renew(self, request: Reservation, output_tokens: int) -> None:
        """A sign of life, be the lease over or not."""
        assert request.about is not None
        about = told(request.request_id, request.about.admitted_ms, request.about.input_tokens, output_tokens)
        await self.subject.limiter.renew([Renewal(request.request_id, ACCOUNT, LEASE_MS, about)])

    async def settle(self, request: Reservation, tokens: int | None) -> None:
        """At so many tokens; None gives the request back."""
        requests = 0 if tokens is None else 1
        event = b"" if tokens is None else self.event(request, tokens)
        await self.subject.limiter.settle(settled(request, requests, tokens or 0, event=event))
        self.true[request.request_id] = requests, tokens or 0
        if tokens is not None:
            self.over.append((request, tokens))

    def event(self, request: Reservation, tokens: int) -> bytes:
        """What is true of a request."""
        assert request.about is not None
        return msgspec.msgpack.encode(told(request.request_id, request.about.admitted_ms, 0, tokens))

    async def check(self) -> None:
        """Each window that still stands counts its events and its live holds; each settled request, its truth."""
        state = await self.subject.limiter.peek(ACCOUNT)
        assert state is not None
        for request_id, truth in self.true.items():
            events = [event for name, event in self.ledger.items() if name.removesuffix("/late") == request_id]
            assert (sum(e.requests for e in events), sum(e.input_tokens + e.output_tokens for e in events)) == truth
        for name, (start_s, used) in state[2].items():
            inside = [e for e in self.ledger.values() if start_s <= e.admitted_ms // 1000]
            by_requests = name.startswith("requests")
            assert used == sum(e.requests if by_requests else e.input_tokens + e.output_tokens for e in inside)
        assert state[1] == 0


async def play(subject: Subject, script: list[tuple[str, int]]) -> None:
    """Play a run to its end, when every lease is over."""
    await hydrate(subject, *[Counter(name, 0, 0) for name in WINDOWS_S])
    story = Story(subject)
    for kind, number in script:
        await story.move(kind, number)
    subject.clock.now_us += LEASE_MS * 1000
    await story.move("reap", 0)
    await story.check()


@given(moves)
@settings(max_examples=500, deadline=None, database=None)
def test_the_model_s_events_add_up(script: list[tuple[str, int]]) -> None:
    """A8: whoever bills by the ledger and whoever limits by the counters must never tell a caller two truths."""
    asyncio.run(play(MemorySubject(Clock()), script))


@given(script=moves)
@settings(
    max_examples=200, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # the server is flushed for each example
def test_the_scripts_events_add_up(valkey: ValkeyServer, script: list[tuple[str, int]]) -> None:
    """The same on a real server."""

    async def run() -> None:
        link = RedisLink(valkey.url, timeout_s=10)
        await link.open()
        await link.call("FLUSHALL")
        await play(RedisSubject(link, Clock()), script)
        await link.close()

    asyncio.run(run())
