"""One worker and two, on the one core that the bench gives a gateway: what a second process costs a request.

What it brings needs a core more than the bench has. Fewer requests meet in a worker's turn, so that fewer share a round
trip to Valkey.
"""

from dataclasses import asdict

from tests.bench.client import Client
from tests.bench.measure import Measure, medians
from tests.bench.study import Column, Figures, Study
from tests.bench.target import Candidate, Ground
from tests.bench.tollway import start_tollway
from tests.bench.workloads import WORKLOADS

COUNTS = (1, 2)
ASKED = ("json32", "json256")
ROUNDS, SECONDS = 2, 1.5


def ask(ground: Ground, client: Client, candidate: Candidate) -> list[Figures]:
    """Each count of workers in a room of its own, and each workload on it."""
    rows: list[Figures] = []
    for workers in COUNTS:
        with ground.room(f"workers-{workers}") as room:
            target, measure = start_tollway(room, workers=workers), Measure(room, client)
            for name in ASKED:
                runs = [measure.run(target, WORKLOADS[name], SECONDS) for _ in range(ROUNDS)]
                problems = tuple(problem for run in runs for problem in run.problems)
                figures = asdict(medians(runs))
                rows.append({**figures, "target": f"{name}, {workers} workers", "problems": problems})
    return rows


WORKERS2 = Study(
    "workers2",
    "Tollway with one worker and with two, all on one core:",
    ("tollway",),
    (
        Column("cpu_us", "CPU µs", 1),
        Column("valkey_cpu_us", "Valkey µs", 1),
        Column("per_s", "per s"),
        Column("whole_p50_us", "p50 µs"),
        Column("whole_p99_us", "p99 µs"),
        Column("scripts_per_request", "scripts/req", 2),
        Column("rss_mb", "RSS MB"),
    ),
    ask,
)
