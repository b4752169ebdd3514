"""Every way a stream can go wrong under every policy of a tier (rows B5, F5): the bill is the upstream's own count
wherever the gateway came to hear it, else what was seen, and nothing stays held.
"""  # noqa: D205

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.domain.usage import CountedBy, Outcome, UsageEvent
from tests.support.odd_peer import Visit, odd_peer
from tests.support.openai_wire import DONE, STREAM_HEAD, chunk, completion, event, framed, http, usage_chunk
from tests.support.stand import SETTINGS, Stand, stand
from tests.support.truth_balance import at_rest, events_of, head_of, post, wire
from tests.support.until import until
from tests.support.valkey import ValkeyServer

POLICIES = [(exhausted, disconnect) for exhausted in ("finish", "stop") for disconnect in ("cancel", "drain")]
LIMITS = "limits: {requests: {hour: 1000}, tokens: {day: 100000}}"
TIERS = f"  free: {{{LIMITS}}}\n" + "\n".join(
    f"  {exhausted}-{disconnect}: {{{LIMITS}, on_exhausted: {exhausted}, on_disconnect: {disconnect}}}"
    for exhausted, disconnect in POLICIES
)
WORDS = 4
REPORTED = (30, 8)
ERROR = event({"error": {"message": "overloaded", "type": "server_error"}})


@dataclass(frozen=True, slots=True)
class Scenario:
    """An upstream that says `heard` words, and once it may go on `then`; `cut` drops the connection after that.

    The client `leaves` in between. `outcome` is that of a stream that was read to its end.
    """

    heard: int
    then: bytes
    leaves: bool = False
    cut: bool = False
    outcome: Outcome = Outcome.OK

    @property
    def reports(self) -> bool:
        """Whether the upstream tells its count."""
        return b'"prompt_tokens"' in self.then

    @property
    def words(self) -> int:
        """Those said in all."""
        return self.heard + self.then.count(b'"word "')


def rest(heard: int) -> bytes:
    """The words still to come."""
    return chunk("word ") * (WORDS - heard)


ENDED = usage_chunk(*REPORTED) + DONE
SCENARIOS = {
    "leaves early": Scenario(0, rest(0) + ENDED, leaves=True),
    "leaves mid": Scenario(2, rest(2) + ENDED, leaves=True),
    "leaves late": Scenario(4, ENDED, leaves=True),
    "leaves, no usage": Scenario(2, rest(2) + DONE, leaves=True),
    "leaves, then cut": Scenario(2, chunk("word "), leaves=True, cut=True, outcome=Outcome.UPSTREAM_CUT),
    "stays": Scenario(2, rest(2) + ENDED),
    "cut": Scenario(2, chunk("word "), cut=True, outcome=Outcome.UPSTREAM_CUT),
    "error event": Scenario(2, ERROR + DONE, outcome=Outcome.UPSTREAM_ERROR),
    "no usage": Scenario(2, rest(2) + DONE),
}


@dataclass(slots=True)
class Told:
    """The upstream: it plays the scenario, stopping in the middle until `go`."""

    scenario: Scenario
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, visit: Visit) -> None:
        """One connection."""
        while True:
            await visit.request()
            await visit.say(STREAM_HEAD, *[framed(chunk("word "))] * self.scenario.heard)
            await self.go.wait()
            await visit.say(framed(self.scenario.then))
            if self.scenario.cut:
                return
            await visit.say(framed(b""))


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
async def test_the_bill_is_the_upstreams_count_wherever_it_was_heard(
    tmp_path: Path, valkey: ValkeyServer, scenario: Scenario
) -> None:
    """F5: four policies, nine ways to end. Under `drain` a caller can't leave just before the bill is told; under
    `cancel` nobody pays for words that were never seen.
    """  # noqa: D205
    upstream = Told(scenario)
    async with odd_peer(upstream) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        for exhausted, disconnect in POLICIES:
            account = f"{exhausted}-{disconnect}"
            upstream.go.clear()
            await play(here, await here.account(account, account), upstream)
            await at_rest(here, valkey, account)
            (settled,) = await events_of(here.ledger, account)
            judge(settled, scenario, drains=disconnect == "drain")


async def play(here: Stand, key: str, upstream: Told) -> None:
    """One client, to its own end."""
    scenario = upstream.scenario
    async with wire(here) as (reader, writer):
        writer.write(post(key, stream=True))
        await head_of(reader)
        for _ in range(scenario.heard):
            await reader.readuntil(b"word ")
        if not scenario.leaves:
            upstream.go.set()
            while await reader.readline() not in {b"0\r\n", b""}:
                pass
    if scenario.leaves:
        await until(noticed(here))
        upstream.go.set()


def judge(settled: UsageEvent, scenario: Scenario, *, drains: bool) -> None:
    """The one event is what it has to be."""
    heard_to_the_end = drains or not scenario.leaves
    words = scenario.words if heard_to_the_end else scenario.heard
    gone = scenario.leaves and (not drains or scenario.outcome is Outcome.OK)
    assert settled.outcome == (Outcome.CLIENT_GONE if gone else scenario.outcome)
    assert settled.requests == 1
    if heard_to_the_end and scenario.reports:
        assert (settled.counted_by, settled.input_tokens, settled.output_tokens) == (CountedBy.UPSTREAM, *REPORTED)
    else:
        assert settled.counted_by == CountedBy.ESTIMATE
        assert settled.input_tokens > 0
        assert words <= settled.output_tokens <= words * len("word ")


def noticed(here: Stand) -> Callable[[], Awaitable[bool]]:
    """Whether the gateway knows that the client has left."""

    async def gone() -> bool:
        return all(exchange.gone for exchange in here.gateway._departures.running)

    return gone


@pytest.mark.parametrize(("disconnect", "charged"), [("cancel", (None, 0)), ("drain", REPORTED)])
async def test_who_leaves_a_whole_answer_pays_by_the_same_rule(
    tmp_path: Path, valkey: ValkeyServer, disconnect: str, charged: tuple[int | None, int]
) -> None:
    """F5: an answer that doesn't stream is drained to its true usage, or costs the input, as nobody saw an answer."""

    async def late(visit: Visit) -> None:
        await visit.request()
        await peer.release.wait()
        await visit.say(http(completion(prompt=REPORTED[0], output=REPORTED[1])))

    async with odd_peer(late) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account("acme", f"finish-{disconnect}")
        async with wire(here) as (_, writer):
            writer.write(post(key))
            await until(held(here))
        await until(noticed(here))
        peer.release.set()
        await at_rest(here, valkey)
        (settled,) = await events_of(here.ledger)
    assert settled.outcome == Outcome.CLIENT_GONE
    assert (settled.input_tokens, settled.output_tokens) == (charged[0] or settled.input_tokens, charged[1])
    assert settled.input_tokens > 0


def held(here: Stand) -> Callable[[], Awaitable[bool]]:
    """Whether a request runs and is held."""

    async def there() -> bool:
        return any(exchange.holding for exchange in here.gateway._departures.running)

    return there


@pytest.mark.parametrize("bound", ["max_drains: 1", "drain_s: 0.5"])
async def test_drains_are_bounded(tmp_path: Path, valkey: ValkeyServer, bound: str) -> None:
    """F5: clients who leave an endless upstream can't keep more than so many of its answers running, nor for ever; the
    rest is let go and pays for what was seen.
    """  # noqa: D205
    let_go = asyncio.Semaphore(0)

    async def silent(visit: Visit) -> None:
        await visit.request()
        await visit.say(STREAM_HEAD, framed(chunk("word ")))
        await visit.client_gone()
        let_go.release()

    settings = SETTINGS.replace("flush_interval_ms: 20", f"flush_interval_ms: 20, {bound}")
    async with odd_peer(silent) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS, settings=settings) as here:
        key = await here.account("acme", "finish-drain")
        for _ in range(2):
            async with wire(here) as (reader, writer):
                writer.write(post(key, stream=True))
                await head_of(reader)
                await reader.readuntil(b"word ")
            await until(noticed(here))
        async with asyncio.timeout(5):
            await let_go.acquire()
            if bound.startswith("drain_s"):
                await let_go.acquire()
                await at_rest(here, valkey)
        assert len(here.gateway._departures.draining) == (1 if bound.startswith("max") else 0)
        events = await events_of(here.ledger)
        assert {event.outcome for event in events} <= {Outcome.CLIENT_GONE}


async def test_a_graceful_stop_waits_for_drains(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: a deploy in the middle of a drain does not turn the upstream's count into an estimate."""
    upstream = Told(SCENARIOS["leaves mid"])
    async with odd_peer(upstream) as peer:
        async with stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
            key = await here.account("acme", "finish-drain")
            async with wire(here) as (reader, writer):
                writer.write(post(key, stream=True))
                await head_of(reader)
                await reader.readuntil(b"word ")
            await until(noticed(here))
            # The stop begins below, while the drain still waits for its upstream.
            asyncio.get_running_loop().call_later(0.3, upstream.go.set)
        async with stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
            (settled,) = await events_of(here.ledger)
    assert (settled.counted_by, settled.input_tokens, settled.output_tokens) == (CountedBy.UPSTREAM, *REPORTED)
    assert settled.outcome == Outcome.CLIENT_GONE
