"""kill -9 at every step between reserve and commit: nothing is lost, nothing counts twice, nobody is locked out."""

import asyncio
import os
import signal
from collections import defaultdict
from pathlib import Path

import pytest

from gateway.domain.usage import Outcome, UsageEvent
from gateway.settings.load import load
from gateway.settings.tiers import tier_of
from tests.support.crash_points import POINTS, CrashPoint, Scene
from tests.support.crash_stage import INPUT, WITHIN_S, CrashStage, crash_stage
from tests.support.truth_verdict import live, sums
from tests.support.until import until


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_kill_at_every_step_loses_nothing_and_counts_nothing_twice(bare_url: str, tmp_path: Path) -> None:
    """A8, B1: whichever step a worker dies at, what its callers have whole is charged as the upstream counted it, what
    was cut is charged its input at least and no more than was made of it, each request once; and the counters, the sums
    and the ledger agree, with no slot taken.
    """  # noqa: D205
    async with crash_stage(tmp_path, bare_url.replace("+aiosqlite", "")) as stage:
        for point in POINTS:
            await _hit(stage, point)
        await _at_rest(stage)
        await asyncio.gather(*[_served_again(stage, point) for point in POINTS])
        await _at_rest(stage)
        events = stage.tollway.events(set(stage.keys))
        by_account: defaultdict[str, list[UsageEvent]] = defaultdict(list)
        for event in events:
            by_account[event.account_id].append(event)
        tier = tier_of("wide", load(stage.tollway.file, {}).tiers["wide"])
        wrong = [f"{point.name}: {fault}" for point in POINTS for fault in _books(stage, point, by_account[point.name])]
        for point in POINTS:
            found = live(tier, await stage.tollway.counters(point.name), by_account[point.name])
            wrong += [f"{point.name}: {fault}" for fault in found]
        assert wrong == []
        assert stage.tollway.sums("usage_hourly", set(stage.keys)) == sums(events)
        assert stage.tollway.sums("usage_daily", set(stage.keys)) == sums(events)
        assert stage.tollway.set_aside() == 1
        assert await stage.untold() == 0


async def _hit(stage: CrashStage, point: CrashPoint) -> None:
    """Kill a worker at the point, by what leads there."""
    match point.scene:
        case Scene.STREAM | Scene.REAP | Scene.LATE:
            await _hit_by_stream(stage, point)
        case Scene.OUTAGE | Scene.RETURN | Scene.HEIR:
            await _hit_by_outage(stage, point)
        case _:
            stage.arm(point)
            if point.scene is Scene.POISON:
                await stage.poison()
            if point.scene is Scene.CHANGE:
                await stage.change(point.name)
            async with asyncio.timeout(WITHIN_S):
                await stage.round(point.name)
                while stage.armed(point):
                    await stage.round(point.name)


async def _hit_by_stream(stage: CrashStage, point: CrashPoint) -> None:
    if point.scene is Scene.LATE:
        async with stage.held_stream(point.name):
            await stage.end_lease(point.name)
            stage.arm(point)
    else:
        async with stage.held_stream(point.name):
            stage.arm(point)
            if point.scene is Scene.REAP:
                await stage.end_lease(point.name)
            await stage.burned(point)
    await stage.burned(point)


async def _hit_by_outage(stage: CrashStage, point: CrashPoint) -> None:
    """Redis hangs for a while, in which requests are served; the worker dies meanwhile, or once Redis is back."""
    await stage.round(point.name)
    valkey = stage.tollway.processes()["valkey-server"]
    os.kill(valkey, signal.SIGSTOP)
    try:
        if point.scene is Scene.OUTAGE:
            stage.arm(point)
        async with asyncio.timeout(WITHIN_S):
            while stage.armed(point) or not stage.journals():
                await stage.round(point.name)
        if point.scene is not Scene.OUTAGE:
            await stage.round(point.name)
            stage.arm(point)
        if point.scene is Scene.HEIR:
            for name, pid in stage.tollway.processes().items():
                if name.startswith("worker"):
                    os.kill(pid, signal.SIGKILL)
    finally:
        os.kill(valkey, signal.SIGCONT)
    await stage.burned(point)


async def _served_again(stage: CrashStage, point: CrashPoint) -> None:
    """Whoever asks is served now, and not locked out; at a later try where a worker is only just back."""
    before = set(stage.whole)

    async def served() -> bool:
        await stage.ask(point.name)
        return any(stage.asked_by[request_id] == point.name for request_id in stage.whole - before)

    await until(served, WITHIN_S)


async def _at_rest(stage: CrashStage) -> None:
    """Nothing is held, on its way or in a journal."""
    await stage.end_all_leases()

    async def empty() -> bool:
        return not any((await stage.tollway.left_over()).values()) and stage.journals() == []

    await until(empty, WITHIN_S)


def _books(stage: CrashStage, point: CrashPoint, events: list[UsageEvent]) -> list[str]:
    """What the ledger has of the point's requests that is not as it should be."""
    wrong = []
    by_id: defaultdict[str, list[UsageEvent]] = defaultdict(list)
    for event in events:
        by_id[event.request_id.removesuffix("/late")].append(event)
    mine = {request_id: said for request_id, said in stage.said.items() if stage.asked_by[request_id] == point.name}
    for request_id, said in mine.items():
        found = by_id.pop(request_id, [])
        used = [sum(column) for column in zip(*[_counts(event) for event in found], strict=True)]
        reaped = Outcome.REAPED in {event.outcome for event in found}
        if request_id in stage.whole and not (reaped and not point.sure):
            right = used == [1, INPUT, said]
        else:
            held = max((event.estimated_tokens for event in found), default=0)
            right = len(used) == 3 and used[0] == 1 and INPUT <= used[1] <= held and used[2] <= _most(said)
        if not right or len(found) != len({event.request_id for event in found}):
            whole = "whole" if request_id in stage.whole else "cut"
            wrong.append(f"{whole}, {said} said: {[(event.request_id, *_counts(event)) for event in found]}")
    for request_id, found in by_id.items():
        # Admitted by a worker that died before it sent anything: nobody knows that the upstream never had it.
        if [(event.outcome, event.requests, event.output_tokens) for event in found] != [(Outcome.REAPED, 1, 0)]:
            wrong.append(f"{request_id} never reached the upstream: {found}")
    return wrong


def _counts(event: UsageEvent) -> tuple[int, int, int]:
    return event.requests, event.input_tokens, event.output_tokens


def _most(true: int) -> int:
    """A worker that has just begun knows no ratio yet, and takes a byte of text for a token at the most."""
    return len("word ") * true + 1
