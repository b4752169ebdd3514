"""Nothing is over and nothing is lost: 500 answers at once over four worker processes, against an upstream that keeps
its own count, with callers who leave and answers that break.

The tree is started once for each database; each seed has accounts of its own.
"""  # noqa: D205

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.domain.limits import Tier
from gateway.settings.load import load
from gateway.settings.tiers import tier_of
from tests.support.truth_caller import Caller
from tests.support.truth_gateway import SETTINGS, Tollway
from tests.support.truth_story import Story, draw
from tests.support.truth_upstream import TrueUpstream, true_upstream
from tests.support.truth_verdict import books, live, most_at_once, sums, windows
from tests.support.until import until

CALLERS = {"wide": 520, "counted": 50, "metered": 40, "narrow": 40, "tight": 40}
"""Callers who ask at once, each with a connection of its own, by the tier of their account."""

ROUNDS = {"wide": 2, "counted": 3, "metered": 5, "narrow": 6, "tight": 6}
"""How often each of them asks: the first time all at once, then as answers end, so that slots and windows are fought
for while others are given back."""

AT_ONCE = 500

PATIENT = SETTINGS.replace("timeout_ms: 5000", "timeout_ms: 30000, local_share: 0")
"""On a machine so busy that Redis answers late, nobody is admitted without it: windows are held to the token here."""

WITHIN_S = 60
"""For each of what has to happen; a machine with nothing else to do takes a second."""

QUIET_LOOKS = 3
"""In a row, until nothing is taken to be under way: between a client's leaving and its settlement lies a moment."""


@dataclass(slots=True)
class Stage:
    """The running tree, its upstream, and the tiers as the gateway has them."""

    tollway: Tollway
    upstream: TrueUpstream
    tiers: dict[str, Tier]


@dataclass(slots=True)
class Run:
    """One seed's run: its accounts by tier, and its stories by account."""

    rng: random.Random
    seed: int
    accounts: dict[str, str]
    keys: dict[str, str] = field(default_factory=dict)
    stories: dict[str, list[Story]] = field(default_factory=dict)

    def story(self, upstream: TrueUpstream, account: str) -> Story:
        """A new request of the account."""
        mine = self.stories.setdefault(account, [])
        story = draw(self.rng, account, f"{account}-{len(mine)}")
        mine.append(story)
        upstream.stories[story.name] = story
        return story


@asynccontextmanager
async def started(directory: Path, database_url: str = "") -> AsyncIterator[Stage]:
    """The tree on a ledger, which is an SQLite file of its own where no other is named."""
    async with true_upstream() as upstream:
        tollway = Tollway(directory, upstream.port, settings=PATIENT, database_url=database_url)
        settings = load(tollway.file, {})
        tiers = {name: tier_of(name, tier) for name, tier in settings.tiers.items()}
        with tollway:
            yield Stage(tollway, upstream, tiers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Started once for all seeds of this process."""
    async with started(tmp_path_factory.mktemp("truth")) as stage:
        yield stage


@pytest.fixture(scope="module")
def postgres_url(new_postgres: Callable[[str], str]) -> str:
    """An empty ledger of PostgreSQL's."""
    return new_postgres("ledger")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on_postgres(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> AsyncIterator[Stage]:
    """The same on PostgreSQL."""
    async with started(tmp_path_factory.mktemp("truth"), postgres_url) as stage:
        yield stage


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("seed", range(17))
async def test_nothing_is_over_and_nothing_is_lost(on_sqlite: Stage, seed: int) -> None:
    """D1, A8, B9: at any concurrency over any number of workers, no window passes its limit by the upstream's own
    count, no more run at once than the tier allows, and the ledger holds one true event for each answer. Whoever pays
    for the upstream is hurt if the first breaks, whoever is billed if the second does.
    """  # noqa: D205
    await hold(on_sqlite, seed)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("seed", range(17, 20))
async def test_nothing_is_over_and_nothing_is_lost_on_postgresql(on_postgres: Stage, seed: int) -> None:
    """The same where every worker flushes, each its own partitions, side by side."""
    await hold(on_postgres, seed)


async def hold(stage: Stage, seed: int) -> None:
    """Play a seed, and hold what came of it against what the upstream and the callers saw."""
    run = Run(random.Random(seed), seed, {tier: f"s{seed}-{tier}" for tier in CALLERS})
    run.keys = await stage.tollway.accounts({account: tier for tier, account in run.accounts.items()})

    await play(stage, run)
    await settled(stage)

    events = stage.tollway.events(set(run.keys))
    for tier, account in run.accounts.items():
        stories, mine = run.stories[account], [event for event in events if event.account_id == account]
        assert not (wrong := books(stories, mine)), wrong
        assert not (wrong := windows(stage.tiers[tier], stories, mine)), wrong
        assert live(stage.tiers[tier], await stage.tollway.counters(account), mine) == []
        concurrency = stage.tiers[tier].concurrency
        assert concurrency is None or most_at_once(stories) <= concurrency
        assert {story.status for story in stories} >= ({200} if tier == "wide" else {200, 429})
    assert stage.tollway.sums("usage_hourly", set(run.keys)) == sums(events)
    assert stage.tollway.sums("usage_daily", set(run.keys)) == sums(events)
    assert stage.tollway.set_aside() == 0
    assert stage.upstream.unknown == []
    at_once = most_at_once([story for stories in run.stories.values() for story in stories])
    assert at_once >= AT_ONCE


async def play(stage: Stage, run: Run) -> None:
    """All callers ask; once each is refused or runs, the upstream begins to answer, and all ask on."""
    stage.upstream.gate.clear()
    callers = [
        asyncio.create_task(call(stage, run, account, ROUNDS[tier]))
        for tier, account in run.accounts.items()
        for _ in range(CALLERS[tier])
    ]

    async def decided() -> bool:
        asked = [story for stories in run.stories.values() for story in stories]
        return len(asked) == len(callers) and all(story.arrivals or story.over for story in asked)

    await until(decided, within_s=WITHIN_S)
    stage.upstream.gate.set()
    async with asyncio.timeout(WITHIN_S):
        await asyncio.gather(*callers)


async def call(stage: Stage, run: Run, account: str, rounds: int) -> None:
    """One caller's requests, on one connection while it lasts."""
    caller = Caller(stage.tollway.port, run.keys[account])
    try:
        for _ in range(rounds):
            await caller.ask(run.story(stage.upstream, account), stage.upstream.gate)
            await stage.upstream.gate.wait()
            await asyncio.sleep(run.rng.random() / 10)
    finally:
        caller.close()


async def settled(stage: Stage) -> None:
    """Everything has reached the ledger: no hold, no lease, no event on its way.

    A worker may find a request of a caller who has left by now: first it has to have seen that.
    """

    async def at_rest() -> bool:
        for _ in range(QUIET_LOOKS):
            if not stage.tollway.is_left() or any((await stage.tollway.left_over()).values()):
                return False
            await asyncio.sleep(0.05)
        return True

    await until(at_rest, within_s=WITHIN_S)
