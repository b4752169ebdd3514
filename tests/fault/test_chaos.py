"""A sample of `make chaos`: random faults at random moments, and a verdict by the upstream's own count.

The long runs are made by hand; `docs/reliability.md` has their seeds and figures.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.mutants import MUTANTS, broken_copy

SEEDS = 8
"""Of each database, another handful each time: a seed that fails is printed, and `make chaos` plays it again."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_whatever_breaks_nothing_is_over_lost_or_doubled(database: str) -> None:
    """A8, B9, D6: killed, frozen and emptied servers, cut and stalled links, full disks and jumping clocks, several at
    once: the ledger holds each answer once and true, no window is passed by more than the published bound, nothing
    stays held. Whoever bills by the ledger, or pays for the upstream, is hurt if this breaks.
    """  # noqa: D205
    first = random.SystemRandom().randint(1_000, 10**6)
    run = _chaos("--database", database, "--first", str(first), "--seeds", str(SEEDS))
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_mutant_can_be_made(tmp_path: Path, name: str) -> None:
    """The broken copies that prove the driver follow the code: one that can't be broken any more proves nothing."""
    assert broken_copy(name, tmp_path) == tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_gateway_that_acknowledges_before_the_commit_is_caught() -> None:
    """The driver sees what it is for: usage that a killed flusher or a lost database took with it."""
    run = _chaos("--mutant", "ack_before_commit", "--seeds", "20")
    assert run.returncode == 0, run.stdout + run.stderr


def _chaos(*arguments: str) -> "subprocess.CompletedProcess[str]":
    # In a process of its own: pytest's warnings-as-errors and its loop are not the driver's.
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos.run", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )
