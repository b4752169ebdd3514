"""`make bench` still runs and its books balance. Never a time: the machine of a test run is nobody's yardstick."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.bench.processes import tree

BENCH = Path(__file__).resolve().parent.parent / "bench" / "run.py"
WORKLOADS = ("json32", "refuse32", "burst64")
TARGETS = {"direct", "bare", "lean", "tollway"}
DEADLINE_S = 150

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None, reason="mock and load client of the bench are C: apt-get install gcc libc6-dev"
)


def _bench(*flags: str) -> list[str]:
    return [sys.executable, str(BENCH), "--rounds", "1", "--seconds", "0.4", "--skip", "nginx", *flags]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The table and the JSON of one short run."""
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    command = _bench("--only", ",".join(WORKLOADS), "--json", str(file))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as bench:
        stopper = threading.Timer(DEADLINE_S, bench.terminate)
        stopper.start()
        printed, said = bench.communicate()
        stopper.cancel()
    assert bench.returncode == 0, printed + said
    result: dict[str, Any] = json.loads(file.read_text())
    return printed, result


@needs_compiler
def test_table_has_a_row_for_each_workload_on_each_target(outcome: tuple[str, dict[str, Any]]) -> None:
    """A bench that loses a row in silence hides what got slow from whoever compares two releases."""
    printed, result = outcome
    rows = {tuple(line.split()[:2]) for line in printed.splitlines()}

    assert set(result["workloads"]) == set(WORKLOADS)
    for name in WORKLOADS:
        targets = set(result["workloads"][name]["targets"])
        assert targets == ({"tollway"} if name == "refuse32" else TARGETS)
        assert {(name, target) for target in targets} <= rows


@needs_compiler
def test_client_upstream_and_ledger_count_the_same(outcome: tuple[str, dict[str, Any]]) -> None:
    """Rows A8, B9: each answer the mock sent arrived once and was booked once, to the token; refusals never left.

    Else CPU per request is divided by a wrong number, and customers are billed under load for what they did not use.
    """
    for workload_name, workload in outcome[1]["workloads"].items():
        for name, target in workload["targets"].items():
            run = target["runs"][0]
            refused = workload_name == "refuse32"
            assert target["problems"] == [], (workload_name, name)
            assert run["answers"] > 0, (workload_name, name)
            assert run["served"] == (0 if refused else run["answers"]), (workload_name, name)
            assert (run["events"] > 0) == (workload["unit"] == "event"), (workload_name, name)
            assert bool(run["booked"]) == (name == "tollway"), (workload_name, name)


@needs_compiler
def test_studies_and_soak_add_up(tmp_path: Path) -> None:
    """A8, B9: under a storm of refusals and under a steady load, every answer is in the ledger; memory is told of.

    These are the bench's long runs: nobody notices for months that they have stopped to check anything.
    """
    file = tmp_path / "bench.json"
    command = _bench("--only", "mixed", "--soak", "3", "--json", str(file))
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    studies = json.loads(file.read_text())["studies"]
    assert studies.keys() == {"mixed", "soak"}
    assert [row["target"] for row in studies["mixed"]["rows"]] == ["tollway"]
    assert all(row["heavy_per_s"] > 0 and row["problems"] == [] for row in studies["mixed"]["rows"])
    last = studies["soak"]["rows"][-1]
    assert (last["problems"], last["unbooked"], last["rss_mb"] > 0) == ([], 0, True)
    assert max(row["files"] for row in studies["soak"]["rows"]) > last["files"]


@needs_compiler
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_bench_leaves_nothing_running(end: signal.Signals) -> None:
    """A developer who ends a bench early, however roughly, must not have its gateways eat a core unseen."""
    with subprocess.Popen(_bench("--only", "json1", "--seconds", "30"), stderr=subprocess.PIPE, text=True) as bench:
        assert bench.stderr is not None
        up = [bench.stderr.readline() for _ in TARGETS]
        started = tree(bench.pid)[1:]
        bench.send_signal(end)
        bench.wait(DEADLINE_S)

    assert [line for line in up if "is up" not in line] == []
    assert len(started) > len(TARGETS)
    deadline = time.monotonic() + 60
    while (left := [pid for pid in started if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == []
