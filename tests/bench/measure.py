"""One measured run of one workload on one target, and the medians of several.

CPU is read before the load and after it, once the target is quiet again: what a gateway does behind its answers
(settling, flushing to the ledger) is its cost too. Counts are checked in each run: where they disagree, the run says so
in `problems` and the table shows it.
"""

import time
from dataclasses import dataclass, fields
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from typing import Any

from tests.bench.audit import Audit
from tests.bench.client import Client, Seen
from tests.bench.processes import cores_busy_s, cpu_s, rss_mb, tree
from tests.bench.target import Ground, Target
from tests.bench.valkey import SCRIPT_CALLS
from tests.bench.workloads import Workload

WARM_UP_S = 0.3


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run cost. Per unit means per answer, or per event of a stream; None is "does not apply"."""

    cpu_us: float
    """CPU of the target's own processes per unit."""
    per_s: float
    """Units per second within the window."""
    first_p50_us: float
    """From the request's write to the first body byte, or to a stream's first event."""
    first_p99_us: float
    whole_p50_us: float
    whole_p99_us: float
    busy: float
    """Share of its core that the target used; near 1, the rate is its limit."""
    others_busy: float
    """Share of the other core that client, mock and Valkey used; near 1, the rate is the bench's limit."""
    foreign: float
    """Share of a core that was taken, on the two together, by what is no part of this bench."""
    rss_mb: float
    valkey_cpu_us: float | None = None
    scripts_per_request: float | None = None
    """Script calls sent to Valkey, a batch counting as one."""
    commands_per_request: float | None = None
    """Commands that Valkey ran, those inside scripts too."""


@dataclass(frozen=True, slots=True)
class Run:
    """Figures of one run, its counts, and where the counts do not agree."""

    figures: Figures
    answers: int
    events: int
    served: int
    """Requests that the mock answered meanwhile."""
    booked: dict[str, int]
    """Requests and tokens that reached the target's own books, where it keeps any."""
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Clocks:
    elapsed_s: float
    target_s: float
    valkey_s: float
    mock_s: float
    client_s: float
    cores_s: float

    def since(self, earlier: "_Clocks") -> "_Clocks":
        pairs = ((getattr(self, each.name), getattr(earlier, each.name)) for each in fields(self))
        return _Clocks(*(now - before for now, before in pairs))


class Measure:
    """Runs workloads against targets."""

    def __init__(self, ground: Ground, client: Client) -> None:
        self._ground = ground
        self._client = client

    def run(self, target: Target, workload: Workload, seconds: float) -> Run:
        """Warm up, load for `seconds`, and account for it. Raises OSError or CalledProcessError if the client fails."""
        warming = Audit(self._ground, target)
        self._client.send(target, workload, WARM_UP_S, body=workload.warm_up)
        warming.settle()
        audit = Audit(self._ground, target)
        calls_before = target.valkey.calls() if target.valkey else {}
        before = self._clocks(target)
        seen = self._client.send(target, workload, seconds)
        under_load = self._clocks(target).since(before)
        rss = rss_mb(tree(target.pid))
        counted = audit.close([(workload, seen)])
        in_all = self._clocks(target).since(before)
        calls = target.valkey.calls() if target.valkey else {}
        new_calls = {name: count - calls_before.get(name, 0) for name, count in calls.items()}
        figures = _figures(target, workload, seen, _Spent(under_load, in_all, rss, new_calls))
        served = counted.served["requests"]
        return Run(figures, seen["answers"], seen["events"], served, counted.booked, counted.problems)

    def _clocks(self, target: Target) -> _Clocks:
        client = getrusage(RUSAGE_CHILDREN)
        return _Clocks(
            elapsed_s=time.monotonic(),
            target_s=cpu_s(tree(target.pid)),
            valkey_s=cpu_s([target.valkey.pid]) if target.valkey else 0.0,
            mock_s=cpu_s([self._ground.mock_pid]),
            client_s=client.ru_utime + client.ru_stime,
            cores_s=cores_busy_s(self._ground.cores),
        )


@dataclass(frozen=True, slots=True)
class _Spent:
    under_load: _Clocks
    in_all: _Clocks
    rss_mb: float
    calls: dict[str, int]


def _figures(target: Target, workload: Workload, seen: Seen, spent: _Spent) -> Figures:
    units = max(1, seen["answers"] if workload.unit == "answer" else seen["events"])
    in_window = seen["answers_in_window"] if workload.unit == "answer" else seen["events_in_window"]
    load, requests = spent.under_load, max(1, seen["answers"])
    is_mock = load.target_s if target.name == "direct" else 0.0
    others_s = load.valkey_s + load.mock_s + load.client_s
    scripts = sum(spent.calls.get(name, 0) for name in SCRIPT_CALLS)
    return Figures(
        cpu_us=spent.in_all.target_s / units * 1e6,
        per_s=in_window / seen["seconds"],
        first_p50_us=seen["first_us"]["p50"],
        first_p99_us=seen["first_us"]["p99"],
        whole_p50_us=seen["whole_us"]["p50"],
        whole_p99_us=seen["whole_us"]["p99"],
        busy=load.target_s / load.elapsed_s,
        others_busy=others_s / load.elapsed_s,
        foreign=max(0.0, load.cores_s - load.target_s - others_s + is_mock) / load.elapsed_s,
        rss_mb=spent.rss_mb,
        valkey_cpu_us=spent.in_all.valkey_s / units * 1e6 if target.valkey else None,
        scripts_per_request=scripts / requests if target.valkey else None,
        commands_per_request=sum(spent.calls.values()) / requests if target.valkey else None,
    )


def medians(runs: list[Run]) -> Figures:
    """The median of each figure over the runs of one workload on one target."""
    values: dict[str, Any] = {}
    for each in fields(Figures):
        known = [value for run in runs if (value := getattr(run.figures, each.name)) is not None]
        values[each.name] = median(known) if known else None
    return Figures(**values)
