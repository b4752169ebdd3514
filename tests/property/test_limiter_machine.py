"""The scripts on a real server beside the plain model, through whatever order of calls, losses and clocks.

Both are asked the same at the same time; they must answer the same, hold the same and count the same. What must be
true of any limiter is checked on the model after each step.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from gateway.domain.decisions import (
    Admitted,
    Counter,
    Decision,
    Extension,
    Line,
    Renewal,
    Reservation,
    Settlement,
)
from gateway.domain.limits import UTC, Window
from gateway.domain.usage import UsageEvent
from gateway.domain.windows import bounds
from gateway.quota.hold import read_hold
from gateway.quota.keys import Keyspace
from gateway.quota.resp import RedisLink
from tests.support.limiters import PARTITIONS, Clock, MemorySubject, RedisSubject, told
from tests.support.valkey import ValkeyServer

T = TypeVar("T")

ACCOUNTS = ("a", "b")
MAXIMA = {"requests/minute": 4, "requests/hour": 7, "tokens/hour": 100, "tokens/day": 150}

accounts = st.sampled_from(ACCOUNTS)
amounts = st.sampled_from([1, 1, 0, 2, 3, 50])


class LimiterMachine(RuleBasedStateMachine):
    """Drives both limiters. `server` is set by the test below."""

    server: ClassVar[ValkeyServer]

    live = Bundle("live")
    over = Bundle("over")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.asked = 0
        self.eras: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self.within_estimates = True
        self.runner.run(self._connect())

    async def _connect(self) -> None:
        self.link = RedisLink(self.server.url, timeout_s=10)
        await self.link.open()
        await self.link.call("FLUSHALL")
        self.model = MemorySubject(self.clock)
        self.scripts = RedisSubject(self.link, self.clock)

    def teardown(self) -> None:
        """Let go of the link and the loop."""
        self.runner.run(self.link.close())
        self.runner.close()

    def both(self, ours: Coroutine[Any, Any, T], theirs: Coroutine[Any, Any, T]) -> T:
        """The one answer that both give."""

        async def ask() -> tuple[T, T]:
            return await ours, await theirs

        expected, got = self.runner.run(ask())
        assert got == expected
        return expected

    def reserve(self, reservation: Reservation) -> Decision:
        """What both decide."""
        return self.both(self.model.limiter.reserve(reservation), self.scripts.limiter.reserve(reservation))

    @initialize()
    def begin(self) -> None:
        """Most runs begin with accounts that are known."""
        for account in ACCOUNTS:
            self.hydrate(account, 1, dict.fromkeys(MAXIMA, 0), "", 0)

    @rule(
        target=live,
        account=accounts,
        lines=st.dictionaries(st.sampled_from(sorted(MAXIMA)), amounts, min_size=1, max_size=4),
        version=st.sampled_from([3, 3, 3, 3, 2, 1]),
        concurrency=st.sampled_from([-1, -1, -1, 3, 1, 0]),
        late_s=st.sampled_from([0, 0, 0, 0, 0, 30, -30]),
        length_s=st.sampled_from([0, 0, 5400]),
        lease_s=st.sampled_from([30, 60, 600, 90_000]),
        tokens=st.sampled_from([None, 0, 1, 40]),
    )
    def ask(
        self,
        account: str,
        lines: dict[str, int],
        version: int,
        concurrency: int,
        *,
        late_s: int,
        length_s: int,
        lease_s: int,
        tokens: int | None,
    ) -> Any:
        """Reserve; now and then by a gateway whose clock is off, or one that knows another window."""
        self.asked += 1
        request_id = f"r{self.asked}"
        built = tuple(self._line(name, amount, late_s, length_s) for name, amount in lines.items())
        about = None if tokens is None else self._told(request_id, tokens)
        reservation = Reservation(request_id, account, version, built, concurrency, lease_s * 1000, about)
        self.eras[request_id] = self.runner.run(self._eras())
        return reservation if isinstance(self.reserve(reservation), Admitted) else multiple()

    async def _eras(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return await self.model.eras(), await self.scripts.eras()

    def _told(self, request_id: str, tokens: int) -> UsageEvent:
        return told(request_id, self.clock.now_us // 1000, tokens)

    def _packed(self, request_id: str, tokens: int = 0) -> bytes:
        return msgspec.msgpack.encode(self._told(request_id, tokens))

    def _line(self, name: str, amount: int, late_s: int, length_s: int) -> Line:
        now_s = self.clock.now_s + late_s
        start_s, end_s = bounds(Window(name.partition("/")[2]), now_s, UTC)
        if length_s:
            start_s = now_s - now_s % length_s
            end_s = start_s + length_s
        return Line(name, start_s, end_s, MAXIMA[name], amount)

    @rule(reservation=live)
    def ask_again(self, reservation: Reservation) -> None:
        """A retry after a time-out whose outcome nobody knows."""
        # A retry comes within seconds, long before a lease ends: what was reaped or lost since would be held anew.
        if reservation.request_id not in self.model.limiter._holds:
            return
        before = self.runner.run(self.model.limiter.peek(reservation.account_id))
        decision = self.reserve(reservation)
        after = self.runner.run(self.model.limiter.peek(reservation.account_id))
        if isinstance(decision, Admitted) and before and after:
            assert after[1:] == before[1:]

    @rule(target=over, reservation=consumes(live), share=st.sampled_from([0, 1, 2, 2]), event=st.booleans())
    def settle(self, reservation: Reservation, share: int, event: bool) -> Settlement:
        """Settle at none, half or all of the estimate."""
        true = tuple((line.name, line.start_s, line.amount * share // 2) for line in reservation.lines)
        event_bytes = self._packed(reservation.request_id, share) if event else b""
        return self._settle(Settlement(reservation.request_id, reservation.account_id, true, event_bytes))

    @rule(target=over, reservation=consumes(live), excess=amounts, kept=st.integers(0, 4))
    def settle_otherwise(self, reservation: Reservation, excess: int, kept: int) -> Settlement:
        """Settle above the estimate, and leave lines out."""
        self.within_estimates = False
        true = tuple((line.name, line.start_s, line.amount + excess) for line in reservation.lines[:kept])
        return self._settle(
            Settlement(reservation.request_id, reservation.account_id, true, self._packed(reservation.request_id))
        )

    @rule(settlement=over, again=st.booleans())
    def settle_twice(self, settlement: Settlement, again: bool) -> None:
        """The same settlement once more, whether or not its sender knows."""
        if not again:
            self.within_estimates = False
        repeat = Settlement(
            settlement.request_id, settlement.account_id, settlement.amounts, settlement.event, again=again
        )
        self._settle(repeat)

    @rule(reservation=live, more=st.sampled_from([0, 1, 2, 40]), kept=st.integers(0, 4))
    def extend(self, reservation: Reservation, more: int, kept: int) -> None:
        """Hold more of some lines than was asked at first; asked again, less may be asked than is held by now."""
        asked = tuple(
            Line(line.name, line.start_s, line.end_s, line.maximum, line.amount + more)
            for line in reservation.lines[:kept]
        )
        extension = Extension(reservation.request_id, reservation.account_id, asked)
        self.both(self.model.limiter.extend(extension), self.scripts.limiter.extend(extension))

    @rule(reservation=live, lease_s=st.sampled_from([0, 30, 600]), tokens=st.integers(0, 60))
    def renew(self, reservation: Reservation, lease_s: int, tokens: int) -> None:
        """A sign of life, which may come late."""
        about = self._told(reservation.request_id, tokens)
        renewal = Renewal(reservation.request_id, reservation.account_id, lease_s * 1000, about)
        self.both(self.model.limiter.renew([renewal]), self.scripts.limiter.renew([renewal]))

    @rule()
    def reap(self) -> None:
        """What nobody renewed in time is settled."""
        if self.both(self.model.limiter.reap(), self.scripts.limiter.reap()):
            self.within_estimates = False

    def _settle(self, settlement: Settlement) -> Settlement:
        if settlement.request_id not in self.model.limiter._holds and not settlement.again:
            # Reaped, or lost with the server's memory: it is charged in full, whatever was let in since.
            self.within_estimates = False

        ours, theirs = self.eras.get(settlement.request_id, ((), ()))

        async def tell() -> None:
            await self.model.limiter.settle(msgspec.structs.replace(settlement, eras=ours))
            await self.scripts.limiter.settle(msgspec.structs.replace(settlement, eras=theirs))

        self.runner.run(tell())
        return settlement

    @rule(
        account=accounts,
        version=st.integers(1, 3),
        used=st.one_of(
            st.fixed_dictionaries(dict.fromkeys(MAXIMA, amounts)),
            st.dictionaries(st.sampled_from(sorted(MAXIMA)), amounts, max_size=4),
        ),
        raced=st.sampled_from(["", "", "settle", "bump"]),
        days=st.integers(0, 3),
    )
    def hydrate(self, account: str, version: int, used: dict[str, int], raced: str, days: int) -> None:
        """Hydrate, now and then while usage is settled or the entitlements change."""
        self.take_events()
        marks = self.runner.run(self._marks(account))
        self.asked += 1
        if raced == "settle":
            self.within_estimates = False
            self._settle(Settlement(f"r{self.asked}", account, (), self._packed(f"r{self.asked}")))
        elif raced == "bump":
            self.bump(account, version)
        counters = tuple(
            Counter(name, self._line(name, 0, 0, 0).start_s, min(count, MAXIMA[name])) for name, count in used.items()
        )
        # What the ledger counted and what is held may together pass a maximum here: the ledger is made up.
        self.within_estimates = False if self.model.limiter._holds else self.within_estimates
        expires_s = self.clock.now_s + 3600 + days * 86_400
        self.both(
            self.model.limiter.hydrate(account, version, counters, expires_s, marks[0]),
            self.scripts.limiter.hydrate(account, version, counters, expires_s, marks[1]),
        )

    async def _marks(self, account: str) -> tuple[str, str]:
        return await self.model.limiter.flushed_mark(account, 0), await self.scripts.limiter.flushed_mark(account, 0)

    @rule(account=accounts, version=st.integers(1, 3))
    def bump(self, account: str, version: int) -> None:
        """The account's entitlements change."""
        self.both(self.model.limiter.bump(account, version), self.scripts.limiter.bump(account, version))

    @rule(jump_s=st.sampled_from([1, 59, 60, 600, 3600, 86_400]))
    def wait(self, jump_s: int) -> None:
        """Time passes. The server's expiry goes by its own clock, so what would have ended is ended by hand."""
        self.clock.now_us += jump_s * 1_000_000
        self.runner.run(self._expire())

    async def _expire(self) -> None:
        for account in ACCOUNTS:
            key = Keyspace("tw", PARTITIONS).of(account).account
            has_state = await self.link.call("HEXISTS", key, "v")
            if has_state and await self.link.call("EXPIRETIME", key) <= self.clock.now_s:
                await self.link.call("DEL", key)

    @rule(back_s=st.sampled_from([1, 61]))
    def step_back(self, back_s: int) -> None:
        """The server's clock is set back a little, as after a failover."""
        self.clock.now_us -= back_s * 1_000_000

    @rule(account=accounts)
    def lose(self, account: str) -> None:
        """The server drops an account's state."""
        self.runner.run(self.model.lose(account))
        self.runner.run(self.scripts.lose(account))

    @rule()
    def lose_all(self) -> None:
        """The server loses its memory."""

        async def lose() -> None:
            await self.link.call("FLUSHALL")
            await self.model.lose_all()

        self.runner.run(lose())

    @rule()
    def flush_scripts(self) -> None:
        """The server forgets the scripts."""

        async def flush() -> None:
            await self.link.call("SCRIPT", "FLUSH")

        self.runner.run(flush())

    @rule()
    def take_events(self) -> None:
        """The flusher takes what was settled: the same from both."""

        async def take() -> tuple[list[bytes], list[bytes]]:
            return await self.model.take_events(), await self.scripts.take_events()

        expected, got = self.runner.run(take())
        assert sorted(got) == sorted(expected)

    @invariant()
    def accounts_agree(self) -> None:
        """Same counters; none below zero; running is the number of live holds."""
        for account in ACCOUNTS:
            state = self.both(self.model.limiter.peek(account), self.scripts.limiter.peek(account))
            if state is None:
                continue
            _, running, counters = state
            assert running == sum(hold.account_id == account for hold in self.model.limiter._holds.values())
            for name, (_, used) in counters.items():
                assert used >= 0
                assert used <= MAXIMA[name] or not self.within_estimates

    @invariant()
    def holds_agree(self) -> None:
        """Same holds, with the same leases; the same reaped."""
        holds = self.model.limiter._holds
        assert self.runner.run(self._leases()) == {request_id: hold.lease_ends_us for request_id, hold in holds.items()}
        assert self.runner.run(self._lines()) == {request_id: hold.lines for request_id, hold in holds.items()}
        assert self.runner.run(self._reaped()) == set(self.model.limiter._reaped)

    async def _leases(self) -> dict[str, int]:
        leases: dict[str, int] = {}
        for partition in range(PARTITIONS):
            found = await self.link.call("ZRANGE", f"tw:{{{partition}}}:leases", 0, -1, "WITHSCORES")
            leases |= {name.decode(): int(score) for name, score in zip(found[::2], found[1::2], strict=True)}
            held = await self.link.call("HKEYS", f"tw:{{{partition}}}:holds")
            assert sorted(held) == sorted(found[::2])
        return leases

    async def _lines(self) -> dict[str, list[tuple[str, int, int]]]:
        held = [await self.link.call("HVALS", f"tw:{{{partition}}}:holds") for partition in range(PARTITIONS)]
        return {hold.request_id: hold.lines for packed in held for hold in map(read_hold, packed)}

    async def _reaped(self) -> set[str]:
        keys = await self.link.call("KEYS", "tw:*:reaped:*")
        return {key.decode().rpartition(":")[2] for key in keys}


@pytest.mark.timeout(240)
def test_the_scripts_do_as_the_model_does(valkey: ValkeyServer) -> None:
    """Whatever happens in whatever order, the scripts count as the model does: no limit passed, no slot leaked (B1)."""
    LimiterMachine.server = valkey
    run_state_machine_as_test(
        LimiterMachine, settings=settings(max_examples=80, stateful_step_count=50, deadline=None, database=None)
    )
