"""Callers of a stage: each asks again and again until the traffic ends, whatever it is answered."""

import asyncio
import random
import time
from collections.abc import Callable

from tests.chaos.stage import Stage
from tests.support.truth_caller import Caller
from tests.support.truth_story import Story, draw

PATIENCE_S = 30.0
"""No request takes longer: the longest time-out of an upstream, stalls and a failed-over Valkey's among them."""

Pause = Callable[[random.Random, Story], float]


def _pause_s(rng: random.Random, story: Story) -> float:
    """A refused caller comes back later; one whose gateway is away, too."""
    return rng.uniform(0, 0.05 if story.whole else 0.3)


async def call(
    here: Stage,
    rng: random.Random,
    account: str,
    goes_on: Callable[[], bool],
    wrong: list[str],
    *,
    wanted: Callable[[Story], bool] = lambda _story: True,
    took: Callable[[Story, float], None] = lambda _story, _took_s: None,
    pause_s: Pause = _pause_s,
) -> None:
    """One caller's requests while it `goes_on`, on one connection as long as may be; what nobody may see is `wrong`.

    Of the stories drawn, those that are `wanted` are asked; `took` is told how long each was, in seconds.
    """
    caller = Caller(here.links["gateway"].port, here.keys[account])
    stories = here.stories.setdefault(account, [])
    try:
        while goes_on():
            story = draw(rng, account, f"{account}-{len(stories)}")
            if not wanted(story):
                continue
            stories.append(story)
            here.upstream.stories[story.name] = story
            began_s = time.perf_counter()
            await _ask(here, caller, story, wrong)
            took(story, time.perf_counter() - began_s)
            await asyncio.sleep(pause_s(rng, story))
    finally:
        caller.close()


async def _ask(here: Stage, caller: Caller, story: Story, wrong: list[str]) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await caller.ask(story, here.upstream.gate)
    except TimeoutError:
        wrong.append(f"{story.name} waited {PATIENCE_S} s: {story}")
        caller.close()
    except (AssertionError, ValueError, KeyError) as error:
        wrong.append(f"{story.name} was answered with {error!r}")
        caller.close()
