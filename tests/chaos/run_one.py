"""One seed's run: callers ask, faults strike, all heals, and once everything is at rest it is judged."""

import asyncio
import random
import tempfile
import time
import traceback
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.calls import call
from tests.chaos.faults import DEADLY, FAULTS, STARTING, WEAKENING, Fault
from tests.chaos.stage import CALLERS, TIERS, Stage, stage
from tests.chaos.verdict import verdict

TRAFFIC_S = 3.0
ROLLING = 0.7
"""Share of the runs in which a window ends in the middle."""

PAIRED = 0.6
"""Share of the runs in which something dies while something else is away."""

REST_S = 60.0
"""Until nothing is held or travels, after the last fault: leases, pauses between tries, a database's recovery."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a seed. `wrong` is empty for a clean bill."""

    seed: int
    requests: int
    events: int
    forgiven: int
    happened: tuple[str, ...]
    wrong: tuple[str, ...]
    took_s: float


def play(seed: int, database: str, program_dir: Path) -> Report:
    """Run one seed in processes and directories of its own."""
    started_s = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="twchaos") as directory:
        try:
            return asyncio.run(_play(seed, database, program_dir, Path(directory), started_s))
        except Exception:  # noqa: BLE001  # whatever went wrong belongs into the report of its seed
            return Report(seed, 0, 0, 0, (), (traceback.format_exc(),), time.perf_counter() - started_s)


async def _play(seed: int, database: str, program_dir: Path, directory: Path, started_s: float) -> Report:
    rng = random.Random(seed)
    async with stage(directory, database, program_dir) as here:
        if rng.random() < ROLLING:
            here.clocks.before_the_minute(rng.uniform(0.5, TRAFFIC_S + 0.5))
        wrong: list[str] = []
        ends_s = time.perf_counter() + TRAFFIC_S

        def goes_on() -> bool:
            return time.perf_counter() < ends_s

        callers = [
            asyncio.create_task(call(here, random.Random(rng.getrandbits(64)), account, goes_on, wrong))
            for account in TIERS
            for _ in range(CALLERS)
        ]
        await _strike(here, rng)
        await asyncio.gather(*callers)
        wrong += await rest(here)
        judged = await verdict(here)
        status = await asyncio.to_thread(here.tree.stop)
        if status != 0:
            wrong.append(f"SIGTERM ended it with status {status}")
        wrong += [f"process {pid} is left" for pid in here.tree.orphans()]
        return Report(
            seed,
            sum(map(len, here.stories.values())),
            judged.events,
            judged.forgiven,
            tuple(here.happened),
            (*wrong, *judged.wrong),
            time.perf_counter() - started_s,
        )


async def _strike(here: Stage, rng: random.Random) -> None:
    """A few faults at random moments, overlapping as chance has it."""
    turns: dict[Fault, asyncio.Lock] = {fault: asyncio.Lock() for fault in STARTING}
    begun_s = time.perf_counter()

    async def strike(fault: Fault, at_s: float, chance: random.Random) -> None:
        await asyncio.sleep(at_s)
        async with turns.get(fault, nullcontext()):
            await told(fault, chance)

    async def told(fault: Fault, chance: random.Random) -> None:
        here.happened.append(f"{time.perf_counter() - begun_s:.2f} s {fault.__name__}")
        await fault(here, chance)

    planned = [(rng.choice(FAULTS), rng.uniform(0.1, TRAFFIC_S - 0.2)) for _ in range(rng.randint(1, 4))]
    if rng.random() < PAIRED:
        at_s = rng.uniform(0.3, TRAFFIC_S - 0.6)
        planned += [(rng.choice(WEAKENING), at_s), (rng.choice(DEADLY), at_s + rng.uniform(0.05, 0.6))]
    await asyncio.gather(*[strike(fault, at_s, random.Random(rng.getrandbits(64))) for fault, at_s in planned])


async def rest(here: Stage) -> list[str]:
    """Wait until nothing is held, travels, or waits on a disk."""
    left: dict[str, int] = {}
    with suppress(TimeoutError):
        async with asyncio.timeout(REST_S):
            quiet = 0
            while quiet < 3:  # what is watched lives in other processes
                left = await here.left_over()
                # A request of a caller who has left may be still unread.
                quiet = quiet + 1 if here.tree.is_left() and not any(left.values()) else 0
                await asyncio.sleep(0.1)
            return []
    return [f"not at rest {REST_S} s later: {left}"]
