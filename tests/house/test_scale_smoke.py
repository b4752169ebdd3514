"""`make scale` still runs, and each of its passes does what it should. Never a time: see `test_flush_smoke.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(180)


def test_what_is_timed_at_scale_is_what_was_done() -> None:
    """Who sizes a machine by the stated times must get those of passes that took all accounts over."""
    flags = "--accounts", "300", "--asked", "20"

    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench.scale", *flags], cwd=ROOT, check=False, capture_output=True, text=True
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count(" MiB at most\n") == 3
    assert ran.stdout.count(" ms p99\n") == 4
