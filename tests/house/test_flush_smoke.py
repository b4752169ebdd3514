"""`make flush` still runs and its counts agree. Never a time: the machine of a test run is nobody's yardstick."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(180)


def test_the_flush_lag_is_measured_on_what_really_arrived() -> None:
    """Who sizes a deployment by the stated lag must get a figure of events that are in the ledger, each of them."""
    flags = "--events", "400", "--per-s", "2000", "--ledgers", "sqlite"

    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench.flush", *flags], cwd=ROOT, check=False, capture_output=True, text=True
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "sqlite" in ran.stdout
