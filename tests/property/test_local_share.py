"""The share that a gateway admits without Redis, over any number of workers, outages and amounts."""

import asyncio
import math
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.decisions import Admitted, Refused, Settlement
from gateway.domain.faults import Fault
from gateway.quota.local_limiter import LocalLimiter
from tests.support.limiters import ACCOUNT, asked, line

START_S = 1_700_000_000 // 3600 * 3600
NOW_MS = START_S * 1000 + 5


@given(st.integers(0, 2**53 - 1), st.integers(1, 64), st.floats(0, 1))
def test_the_parts_of_all_workers_are_the_share(limit: int, workers: int, share: float) -> None:
    """D6: the published bound is ⌈share · limit⌉ for a gateway, and no worker's rounding adds to it."""
    parts = [LocalLimiter(share=share, workers=workers, worker=worker).part(limit) for worker in range(workers)]
    assert sum(parts) == math.ceil(limit * share)
    assert max(parts) - min(parts) <= 1


@settings(max_examples=60)
@given(
    limit=st.integers(0, 200),
    workers=st.integers(1, 4),
    share=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    known=st.integers(0, 200),
    story=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(0, 60)), max_size=60),
)
def test_a_window_never_admits_more_than_the_share(
    limit: int, workers: int, share: float, known: int, story: list[tuple[int, int, int]]
) -> None:
    """D6: whatever the order of requests over the workers and however many outages they fall in, what is admitted and
    used within its estimate stays within the share, and never passes the limit by what each worker knew.
    """  # noqa: D205

    async def play() -> int:
        here = [LocalLimiter(share=share, workers=workers, worker=worker) for worker in range(workers)]
        for local in here:
            local.saw(ACCOUNT, (line(START_S, limit, 0),), (known,))
        total = 0
        for number, (worker, amount, true) in enumerate(story):
            local, request = here[worker % workers], asked(f"r{number}", line(START_S, limit, amount))
            try:
                decision = await local.reserve(request, NOW_MS)
            except Fault:
                continue
            if isinstance(decision, Refused):
                assert known + amount > limit - math.ceil(limit * share)
                continue
            assert decision.used[0] <= limit
            used = min(true, amount)
            amounts = (("requests/hour", START_S, used),)
            local.settle(Settlement(f"r{number}", ACCOUNT, amounts, b"never written"))
            total += used
        return total

    total = asyncio.run(play())
    assert total <= math.ceil(Fraction(share) * limit)
    assert total <= max(0, limit - known) * workers


async def test_a_new_window_has_a_new_share() -> None:
    """What was admitted in the last hour, and what was known of it, takes nothing of this one."""
    local = LocalLimiter(share=0.5, workers=1, worker=0)
    local.saw(ACCOUNT, (line(START_S, 2, 0),), (1,))
    assert isinstance(await local.reserve(asked("r1", line(START_S, 2)), NOW_MS), Admitted)
    refused = await local.reserve(asked("r2", line(START_S, 2)), NOW_MS)
    assert isinstance(refused, Refused)
    assert (refused.limit, refused.maximum, refused.used) == ("requests/hour", 2, (2,))
    later = asked("r3", line(START_S + 3600, 2))
    assert isinstance(await local.reserve(later, NOW_MS + 3_600_000), Admitted)


async def test_the_share_of_running_slots() -> None:
    """Slots are shared as windows are, come back when a request ends, and where they lack it is a 503: the limit itself
    may have room.
    """  # noqa: D205
    local = LocalLimiter(share=0.5, workers=2, worker=0)
    request = asked("r1", concurrency=2)
    assert isinstance(await local.reserve(request, NOW_MS), Admitted)
    with pytest.raises(Fault, match="share"):
        await local.reserve(msgspec.structs.replace(request, request_id="r2"), NOW_MS)
    local.give_back(request)
    assert isinstance(await local.reserve(msgspec.structs.replace(request, request_id="r3"), NOW_MS), Admitted)
