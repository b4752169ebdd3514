"""A worker dies or stands still with requests running: what they held is settled, once, and nobody is locked out."""

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.domain.usage import CountedBy, Outcome
from tests.support.leased_stage import LEASE_S, PROMPT, Stage, leased_stage, sums
from tests.support.truth_balance import head_of
from tests.support.until import until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """The running tree, nothing asked yet."""
    async with leased_stage(tmp_path) as here:
        yield here


async def test_a_killed_worker_s_requests_are_reaped_and_the_others_live(stage: Stage) -> None:
    """A8, B1: `kill -9` costs callers neither their slots nor more than was seen, and a stream longer than two leases
    on a living worker keeps its hold. Before, the slots of a killed worker were lost for ever.
    """  # noqa: D205
    started_s = time.monotonic()
    await stage.fill()
    await stage.streams_told()
    victim = stage.calls[0].worker
    lost = [call for call in stage.calls if call.worker == victim]
    alive = [call for call in stage.calls if call.worker != victim]

    os.kill(stage.tollway.processes()[victim], signal.SIGKILL)
    await stage.running(len(alive))
    await stage.flushed()

    events = stage.events()
    assert len(events) == len(lost)
    assert {event.outcome for event in events} == {Outcome.REAPED}
    assert {event.counted_by for event in events} == {CountedBy.ESTIMATE}
    assert all(event.requests == 1 and event.input_tokens >= PROMPT for event in events)
    assert sum(event.output_tokens > 0 for event in events) == sum(call.streamed for call in lost)
    assert all(event.output_tokens < event.estimated_tokens for event in events)

    again = [await stage.ask("narrow", streamed=False) for call in lost if call.account == "narrow"]
    await stage.running(len(alive) + len(again))
    refused = await stage.ask("narrow", streamed=False)
    assert (await head_of(refused.reader))[0] == 429

    async def two_leases_later() -> bool:
        return time.monotonic() > started_s + 2 * LEASE_S + 1

    await until(two_leases_later)
    assert (await stage.tollway.left_over())["holds"] == len(alive) + len(again)
    stage.upstream.release.set()
    assert {(await head_of(call.reader))[0] for call in [*alive, *again]} == {200}
    await stage.running(0)
    await stage.flushed()
    assert await stage.agreed() == []
    settled = {event.request_id: event for event in stage.events() if event.outcome is Outcome.OK}
    assert len(settled) == len(alive) + len(again)
    assert all(usage == stage.true_usage()[name] for name, usage in sums(list(settled.values())).items())
    assert len(stage.events()) == len(stage.calls) - 1


async def test_a_fleet_that_was_killed_whole_is_reaped_by_the_next(stage: Stage) -> None:
    """B1: when all workers die at once (out of memory), those that take their place free what they held."""
    await stage.fill()
    for name, pid in stage.tollway.processes().items():
        if name.startswith("worker"):
            os.kill(pid, signal.SIGKILL)

    await stage.running(0)
    await stage.flushed()

    assert len(stage.events()) == len(stage.calls)
    assert {event.outcome for event in stage.events()} == {Outcome.REAPED}
    assert await stage.agreed() == []
    for _ in range(5):
        await stage.ask("narrow", streamed=False)
    await stage.running(5)


async def test_a_worker_that_stood_still_settles_late_and_true(stage: Stage) -> None:
    """A8: a process that is stopped for longer than a lease is reaped, and comes back with the truth: the ledger's
    events add up to what the upstream counted, and the counters to the ledger.
    """  # noqa: D205
    await stage.fill()
    victim = stage.calls[0].worker
    frozen = stage.tollway.processes()[victim]
    alive = [call for call in stage.calls if call.worker != victim]

    os.kill(frozen, signal.SIGSTOP)
    try:
        await stage.running(len(alive))
    finally:
        os.kill(frozen, signal.SIGCONT)
    stage.upstream.release.set()
    assert {(await head_of(call.reader))[0] for call in stage.calls} == {200}

    async def true() -> bool:
        return sums(stage.events()) == stage.true_usage()

    await until(true)
    await stage.running(0)
    await stage.flushed()
    assert await stage.agreed() == []
    late = [event for event in stage.events() if event.request_id.endswith("/late")]
    assert len(late) == len(stage.calls) - len(alive)
    assert {event.requests for event in late} == {0}
