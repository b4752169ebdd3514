"""One measured run of one workload on one target, and the medians of several.

CPU is read before the load and after it, once the target is quiet again: what a gateway does behind its answers
(settling, flushing to the ledger) is its cost too. Counts are checked in each run: the client, the mock and the
workload must agree to the unit, and so must the target's books, where it keeps any (Tollway's ledger: requests and
tokens of each kind). Where they don't, the run says so in `problems` and the table shows it.
"""

import json
import subprocess
import time
from dataclasses import asdict, dataclass, fields
from http.client import HTTPConnection
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from typing import Any

from tests.bench.processes import cores_busy_s, cpu_s, pinned, rss_mb, tree
from tests.bench.target import Ground, Target
from tests.bench.valkey import SCRIPT_CALLS
from tests.bench.workloads import PATH, Workload

WARM_UP_S = 0.3
LOAD_GRACE_S = 30.0
QUIET_STEP_S = 0.25
QUIET_SHARE = 0.03
QUIET_WAIT_S = 5.0
BOOKS_WAIT_S = 15.0


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
    """Runs workloads against targets with the load program at `load`."""

    def __init__(self, ground: Ground, load: Path) -> None:
        self._ground = ground
        self._load = load

    def run(self, target: Target, workload: Workload, seconds: float) -> Run:
        """Warm up, load for `seconds`, and account for it. Raises OSError or CalledProcessError if the client fails."""
        served_at_start, booked_at_start = self._served(), _booked(target)
        self._send(target, workload, WARM_UP_S)
        served_before = self._served()
        booked_before = _settled(target, booked_at_start, served_before["requests"] - served_at_start["requests"])
        calls_before = target.valkey.calls() if target.valkey else {}
        before = self._clocks(target)
        seen = self._send(target, workload, seconds)
        under_load = self._clocks(target).since(before)
        rss = rss_mb(tree(target.pid))
        served = _growth(self._served(), served_before)
        booked = _growth(_settled(target, booked_before, served["requests"]), booked_before)
        in_all = self._clocks(target).since(before)
        new_calls = _growth(target.valkey.calls(), calls_before) if target.valkey else {}
        figures = _figures(target, workload, seen, _Spent(under_load, in_all, rss, new_calls))
        problems = _problems(workload, seen, served, booked)
        return Run(figures, seen["answers"], seen["events"], served["requests"], booked, problems)

    def _send(self, target: Target, workload: Workload, seconds: float) -> dict[str, Any]:
        body = self._ground.scratch / f"{workload.name}.json"
        body.write_bytes(workload.body)
        headers = (target.spent_headers if workload.refused else target.headers) or {}
        command = [self._load, "-p", target.port, "-c", workload.connections, "-d", seconds, "-b", body, "-P", PATH]
        command += ["-e", workload.status]
        for name, value in headers.items():
            command += ["-H", f"{name}: {value}"]
        with pinned(self._ground.cores.others):
            words = [str(word) for word in command]
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE, timeout=seconds + LOAD_GRACE_S)
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen

    def _served(self) -> dict[str, int]:
        link = HTTPConnection("127.0.0.1", self._ground.mock_port, timeout=10)
        try:
            link.request("GET", "/stats")
            counts: dict[str, int] = json.loads(link.getresponse().read())
        finally:
            link.close()
        return counts

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


def _figures(target: Target, workload: Workload, seen: dict[str, Any], spent: _Spent) -> Figures:
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


def _growth(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {key: count - before.get(key, 0) for key, count in now.items()}


def _booked(target: Target) -> dict[str, int]:
    return asdict(target.books()) if target.books else {}


def _settled(target: Target, before: dict[str, int], requests: int) -> dict[str, int]:
    """The target's books once it is quiet and they hold `requests` more than `before`, or when time is up."""
    _wait_until_quiet(target)
    deadline = time.monotonic() + BOOKS_WAIT_S
    while (booked := _booked(target)) and time.monotonic() < deadline:
        if booked["requests"] - before["requests"] >= requests:
            break
        time.sleep(QUIET_STEP_S)
    return booked


def _problems(
    workload: Workload, seen: dict[str, Any], served: dict[str, int], booked: dict[str, int]
) -> tuple[str, ...]:
    found = [f"{seen[kind]} {kind}" for kind in ("wrong_status", "cut", "lost", "unfinished") if seen[kind]]
    if seen["wrong_status"]:
        found.append(f"the last was {seen['last_wrong_status']}")
    wanted = 0 if workload.refused else seen["answers"]
    if served["requests"] != wanted:
        found.append(f"the mock served {served['requests']} requests, not {wanted}")
    if workload.unit == "event" and served["events"] != seen["events"]:
        found.append(f"the mock sent {served['events']} events, {seen['events']} arrived")
    found += [
        f"the books have {count} {kind.replace('_', ' ')}, the mock reported {served[kind]}"
        for kind, count in booked.items()
        if count != served[kind]
    ]
    return tuple(found)


def _wait_until_quiet(target: Target) -> None:
    """Wait, bounded, until a target that works on behind its answers has finished."""
    if target.valkey is None:
        return
    deadline = time.monotonic() + QUIET_WAIT_S
    used, before = float("inf"), cpu_s([*tree(target.pid), target.valkey.pid])
    while used > QUIET_SHARE * QUIET_STEP_S and time.monotonic() < deadline:
        time.sleep(QUIET_STEP_S)
        now = cpu_s([*tree(target.pid), target.valkey.pid])
        used, before = now - before, now


def medians(runs: list[Run]) -> Figures:
    """The median of each figure over the runs of one workload on one target."""
    values: dict[str, Any] = {}
    for each in fields(Figures):
        known = [value for run in runs if (value := getattr(run.figures, each.name)) is not None]
        values[each.name] = median(known) if known else None
    return Figures(**values)
