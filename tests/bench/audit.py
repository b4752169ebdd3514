"""The counts of client, mock and books, held against each other.

They must agree to the unit: what the client got is what the mock served, and a target that keeps books (Tollway's
ledger: requests and tokens of each kind) has booked just that. Where they don't agree, the bench says so and fails.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from http.client import HTTPConnection

from tests.bench.client import Seen
from tests.bench.processes import cpu_s, tree
from tests.bench.target import Ground, Target
from tests.bench.workloads import Workload

QUIET_STEP_S = 0.25
QUIET_SHARE = 0.03
QUIET_WAIT_S = 5.0
BOOKS_WAIT_S = 15.0
ERRORS = ("wrong_status", "cut", "lost", "unfinished")

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Counted:
    """What the mock served and what was booked since the audit began, and where they don't agree with the client."""

    served: Counts
    booked: Counts
    problems: tuple[str, ...]


class Audit:
    """Begins when it is made, while nothing is under way."""

    def __init__(self, ground: Ground, target: Target) -> None:
        self._ground, self._target = ground, target
        self._served = _served(ground.mock_port)
        self._booked = _booked(target)

    def unbooked(self) -> int:
        """Requests that the mock has served and the target has not booked yet."""
        served = _growth(_served(self._ground.mock_port), self._served)["requests"]
        return max(0, served - _growth(_booked(self._target), self._booked).get("requests", served))

    def settle(self) -> Counted:
        """Wait, bounded, until the target is quiet and has booked what the mock served."""
        _wait_until_quiet(self._target)
        served = _growth(_served(self._ground.mock_port), self._served)
        deadline = time.monotonic() + BOOKS_WAIT_S
        while (booked := _growth(_booked(self._target), self._booked)) and time.monotonic() < deadline:
            if booked["requests"] >= served["requests"]:
                break
            time.sleep(QUIET_STEP_S)
        return Counted(served, booked, _unbooked(served, booked))

    def close(self, loads: Sequence[tuple[Workload, Seen]]) -> Counted:
        """Settle, and hold the counts against those of all loads since the audit began."""
        counted = self.settle()
        found = [problem for _, seen in loads for problem in _errors(seen)]
        wanted = sum(seen["answers"] for workload, seen in loads if not workload.refused)
        if counted.served["requests"] != wanted:
            found.append(f"the mock served {counted.served['requests']} requests, not {wanted}")
        arrived = sum(seen["events"] for _, seen in loads)
        if counted.served["events"] != arrived:
            found.append(f"the mock sent {counted.served['events']} events, {arrived} arrived")
        return Counted(counted.served, counted.booked, (*found, *counted.problems))


def _errors(seen: Seen) -> list[str]:
    found = [f"{seen[kind]} {kind}" for kind in ERRORS if seen[kind]]
    return [*found, f"the last was {seen['last_wrong_status']}"] if seen["wrong_status"] else found


def _unbooked(served: Counts, booked: Counts) -> tuple[str, ...]:
    return tuple(
        f"the books have {count} {kind.replace('_', ' ')}, the mock reported {served[kind]}"
        for kind, count in booked.items()
        if count != served[kind]
    )


def _served(mock_port: int) -> Counts:
    link = HTTPConnection("127.0.0.1", mock_port, timeout=10)
    try:
        link.request("GET", "/stats")
        counts: Counts = json.loads(link.getresponse().read())
    finally:
        link.close()
    return counts


def _booked(target: Target) -> Counts:
    return asdict(target.books()) if target.books else {}


def _growth(now: Counts, before: Counts) -> Counts:
    return {key: count - before.get(key, 0) for key, count in now.items()}


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
