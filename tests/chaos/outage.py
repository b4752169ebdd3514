"""One long outage of Valkey under load: how long anybody waits, what each tier is told, and how soon the books agree.

`make chaos ARGS="--outage 30"`. The tier `lenient` goes on without Valkey, the others are refused.
"""

import asyncio
import math
import os
import random
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.chaos.calls import call
from tests.chaos.stage import CALLERS, TIERS, stage
from tests.chaos.verdict import verdict
from tests.support.truth_story import Ending, Story

BEFORE_S, AFTER_S = 0.5, 5.0
AGREED_S = 30.0


@dataclass(slots=True)
class Outage:
    """What was seen. `longest_s` is the longest time to an answer beyond what its upstream took, of those who asked
    before Valkey was back; `longest_after_s` of those who asked later.
    """  # noqa: D205

    longest_s: float = 0.0
    longest_after_s: float = 0.0
    back_s: float = math.inf
    told: dict[str, Counter[int]] = field(default_factory=dict)
    agreed_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


def play(lasting_s: float, database: str) -> Outage:
    """Freeze Valkey for so long."""
    with tempfile.TemporaryDirectory(prefix="twchaos") as directory:
        return asyncio.run(_play(lasting_s, database, Path(directory)))


async def _play(lasting_s: float, database: str, directory: Path) -> Outage:
    seen = Outage()
    async with stage(directory, database, Path.cwd()) as here:
        ends_s = time.perf_counter() + BEFORE_S + lasting_s + AFTER_S

        def goes_on() -> bool:
            return time.perf_counter() < ends_s

        async def ask(name: str) -> None:
            rng, note = random.Random(name), partial(_note, seen)
            await call(here, rng, name, goes_on, seen.wrong, wanted=_asked, took=note, pause_s=_pause_s)

        callers = [asyncio.create_task(ask(name)) for name in TIERS for _ in range(CALLERS)]
        await asyncio.sleep(BEFORE_S)
        os.kill(here.valkey.pid, signal.SIGSTOP)
        began_s = time.perf_counter()
        await asyncio.sleep(lasting_s)
        os.kill(here.valkey.pid, signal.SIGCONT)
        back_s = seen.back_s = time.perf_counter()
        await asyncio.gather(*callers)
        while any((await here.left_over()).values()) and time.perf_counter() < back_s + AGREED_S:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # what is watched lives in other processes
        seen.agreed_s = time.perf_counter() - max(back_s, ends_s)
        for account, stories in here.stories.items():
            inside = [story for story in stories if story.over and began_s < story.left_s < back_s]
            seen.told[account] = Counter(story.status for story in inside)
        seen.wrong += (await verdict(here)).wrong
        return seen


def _asked(story: Story) -> bool:
    """Whole answers alone, to callers who stay."""
    story.leaves_at = -1
    return story.ending is Ending.WHOLE


def _note(seen: Outage, story: Story, took_s: float) -> None:
    answered_s = max(0.0, story.ended_s - story.arrived_s) if story.arrivals else 0.0
    story.left_s, waited_s = time.perf_counter(), took_s - answered_s
    if story.left_s - took_s < seen.back_s:
        seen.longest_s = max(seen.longest_s, waited_s)
    else:
        seen.longest_after_s = max(seen.longest_after_s, waited_s)


def _pause_s(rng: random.Random, _: Story) -> float:
    return rng.uniform(0.05, 0.3)
