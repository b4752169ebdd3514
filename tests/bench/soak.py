"""The soak: Tollway under 70 % of what it can carry, for as long as asked; what grows is a leak.

First the most it carries is measured, then JSON answers are asked by the clock at `JSON_SHARE` of that rate, with
`STREAMS` streams open beside them. Memory and files are sampled as it goes. At the end the ledger must hold just what
the mock reported, as in every row of the bench. Log lines are written and thrown away: they would fill the disk.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.bench.audit import Audit
from tests.bench.client import Client, Seen, Sending
from tests.bench.processes import cpu_s, open_files, rss_mb, tree
from tests.bench.study import Column, Figures, Study
from tests.bench.target import Candidate, Ground, Target
from tests.bench.tollway import start_tollway
from tests.bench.workloads import WORKLOADS

FULL_S = 2.0
JSON_SHARE = 0.6
STREAMS = 32
"""Which use about a tenth of a core."""
CONNECTIONS = 128
SAMPLES = 12
SETTLED_SHARE = 0.2
"""Of the time, after which memory is taken to have found its size."""


def soak(seconds: float, ground: Ground, client: Client, _: Candidate) -> list[Figures]:
    """A row for each sample, the first and the last of them at rest. Raises BenchError."""
    target = start_tollway(ground, log=Path("/dev/null"))
    warming = Audit(ground, target)
    per_s = client.send(target, WORKLOADS["json32"], FULL_S)["answers_in_window"] / FULL_S * JSON_SHARE
    warming.settle()
    audit, watch = Audit(ground, target), _Watch(target)
    rows = [watch.row("at rest", audit)]
    json = replace(WORKLOADS["json32"], name="soak", connections=CONNECTIONS)
    streams = replace(WORKLOADS["spaced64"], name="soak-streams", connections=STREAMS)
    sendings = [client.begin(target, json, seconds, per_s=per_s), client.begin(target, streams, seconds)]
    for number in range(1, SAMPLES + 1):
        _wait_until(sendings[0], watch.began_s + seconds * number / SAMPLES)
        rows.append(watch.row("under load", audit))
    answers, events = (sending.seen() for sending in sendings)
    counted = audit.close([(json, answers), (streams, events)])
    last = {**watch.row("at rest", audit), **_latency(answers), "problems": counted.problems}
    return [*rows, {**last, "grown": _growth(rows, seconds)}]


class _Watch:
    """What the target has grown to, by the time since the watch was made."""

    def __init__(self, target: Target) -> None:
        self.began_s = time.monotonic()
        self._target, self._pids = target, tree(target.pid)
        self._last = self.began_s, cpu_s(self._pids)

    def row(self, state: str, audit: Audit) -> Figures:
        """A sample: what stands behind the answers is in `unbooked`."""
        (last_s, last_cpu_s), now_s, now_cpu_s = self._last, time.monotonic(), cpu_s(self._pids)
        self._last = now_s, now_cpu_s
        valkey = self._target.valkey
        return {
            "target": state,
            "problems": (),
            "at_s": now_s - self.began_s,
            "busy": 100 * (now_cpu_s - last_cpu_s) / max(0.001, now_s - last_s),
            "rss_mb": rss_mb(self._pids),
            "valkey_mb": rss_mb([valkey.pid]) if valkey else None,
            "files": open_files(self._pids),
            "unbooked": audit.unbooked(),
        }


def _wait_until(sending: Sending, moment_s: float) -> None:
    while sending.running and time.monotonic() < moment_s:
        time.sleep(min(0.1, max(0.0, moment_s - time.monotonic())))


def _latency(seen: Seen) -> Figures:
    return {"p50_us": seen["whole_us"]["p50"], "p99_us": seen["whole_us"]["p99"], "unsent": seen["unsent"]}


def _growth(rows: Sequence[Figures], seconds: float) -> float:
    """Per cent by which memory grew once it had found its size, under load."""
    sizes = [row["rss_mb"] for row in rows if row["at_s"] >= SETTLED_SHARE * seconds]
    return 100 * (sizes[-1] / sizes[0] - 1) if sizes else 0.0


def soaking(seconds: float) -> Study:
    """The soak of so many seconds as a study."""
    return Study(
        "soak",
        f"Tollway for {seconds:,.0f} s under 70 % of its load: JSON answers by the clock and {STREAMS} streams."
        f" Its memory has grown by so much since {SETTLED_SHARE:.0%} of the time:",
        ("tollway",),
        (
            Column("at_s", "at s"),
            Column("busy", "core %"),
            Column("rss_mb", "RSS MB", 1),
            Column("valkey_mb", "Valkey MB", 1),
            Column("files", "files"),
            Column("unbooked", "not yet booked"),
            Column("p50_us", "p50 µs"),
            Column("p99_us", "p99 µs"),
            Column("unsent", "unsent"),
            Column("grown", "grown %", 1),
        ),
        partial(soak, seconds),
    )
