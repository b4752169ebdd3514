"""`make bench`: what Tollway costs, beside what it is compared with, in one run on one machine.

Targets are started together and take turns, workload by workload and round by round, so that a noisy minute falls on
all of them; the medians of the rounds are printed. CPU µs per unit are the figures to trust; docs/performance.md tells
how to read them. Exits 0 with a table, 1 when counts disagree or something won't start, 2 on a wrong flag; a machine
without a C compiler or a second core is told what is missing, and the bench is skipped with status 0.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from tests.bench.measure import Measure
from tests.bench.peers import PEERS
from tests.bench.processes import BenchError, Cores, free_port, pinned, running, two_cores, wait_until_200
from tests.bench.programs import Programs, compiled
from tests.bench.report import Row, as_json, machine, notes, table
from tests.bench.target import Candidate, Ground, Target
from tests.bench.tollway import TOLLWAY
from tests.bench.workloads import CHUNKS, PATH, QUICK, SPACING_MS, WORKLOADS, json_body

OUT = Path(__file__).resolve().parent / "out"
CANDIDATES = {candidate.name: candidate for candidate in (*PEERS, TOLLWAY)}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The flags, checked."""
    parser = argparse.ArgumentParser(description="CPU per request and per chunk: direct, bare proxy, full duty.")
    parser.add_argument("--quick", action="store_true", help="fewer workloads, one round: about 45 seconds")
    parser.add_argument("--only", type=_names(WORKLOADS), metavar="NAME,…", help=f"of {', '.join(WORKLOADS)}")
    opt_in = [name for name, candidate in CANDIDATES.items() if candidate.opt_in]
    parser.add_argument("--target", type=_names(opt_in), default=[], metavar="NAME,…", help=f"add {', '.join(opt_in)}")
    parser.add_argument("--skip", type=_names(CANDIDATES), default=[], metavar="NAME,…", help="leave targets out")
    parser.add_argument("--rounds", type=int, help="how often each is run (3; quick: 1)")
    parser.add_argument("--seconds", type=float, help="how long each run loads (2; quick: 1.2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure, with ratios")
    flags = parser.parse_args(argv)
    flags.rounds = flags.rounds or (1 if flags.quick else 3)
    flags.seconds = flags.seconds or (1.2 if flags.quick else 2.0)
    flags.only = flags.only or (list(QUICK) if flags.quick else list(WORKLOADS))
    return flags


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"no such name: {', '.join(unknown)}; known: {', '.join(known)}")
        return names

    return parse


def chosen(flags: argparse.Namespace) -> list[Candidate]:
    """The targets to start; says which are left out for want of a program."""
    found = []
    for candidate in CANDIDATES.values():
        if candidate.name in flags.skip or (candidate.opt_in and candidate.name not in flags.target):
            continue
        if missing := candidate.missing():
            _say(f"{candidate.name} is skipped: {missing}")
        else:
            found.append(candidate)
    return found


def bench(flags: argparse.Namespace, programs: Programs, cores: Cores) -> list[Row]:
    """Start everything, take every run, stop everything. Raises BenchError where something does not start."""
    with ExitStack() as stack:
        stack.enter_context(pinned(cores.others))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twb")))
        port = free_port()
        command: list[str | Path] = [programs.mock, "-p", str(port), "-s", str(SPACING_MS)]
        mock = stack.enter_context(running(command, cores.others, scratch / "mock.log"))
        wait_until_200(mock, scratch / "mock.log", port, PATH, json_body(), {})
        ground = Ground(stack, scratch, cores, port, mock.pid, _cache())
        targets = []
        for candidate in chosen(flags):
            targets.append(candidate.start(ground))
            _say(f"{candidate.name} is up: {candidate.duty}")
        return take_turns(Measure(ground, programs.load), targets, flags)


def take_turns(measure: Measure, targets: Sequence[Target], flags: argparse.Namespace) -> list[Row]:
    """Every workload on every target, round by round."""
    rows = [
        Row(WORKLOADS[name], target.name, [])
        for name in flags.only
        for target in targets
        if target.spent_headers or not WORKLOADS[name].refused
    ]
    by_name = {target.name: target for target in targets}
    for turn in range(flags.rounds):
        for row in rows:
            row.runs.append(measure.run(by_name[row.target], row.workload, flags.seconds))
        _say(f"round {turn + 1} of {flags.rounds} is done")
    return rows


def show(rows: Sequence[Row], flags: argparse.Namespace) -> None:
    """Print the table and its notes; write the JSON where asked to."""
    print(table(rows))
    print()
    for note in notes(rows):
        print(note)
    if flags.json:
        settings = {"rounds": flags.rounds, "seconds": flags.seconds, "spacing_ms": SPACING_MS, "chunks": CHUNKS}
        flags.json.write_text(json.dumps(as_json(rows, settings), indent=1) + "\n")


def main(argv: Sequence[str]) -> int:
    """Run the bench; the exit status."""
    flags = arguments(argv)
    try:
        cores, programs = two_cores(), compiled(OUT)
    except BenchError as error:
        _say(f"skipped: {error}")
        return 0
    print(", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    try:
        rows = bench(flags, programs, cores)
    except BenchError as error:
        _say(f"failed: {error}")
        return 1
    show(rows, flags)
    return 1 if any(row.problems for row in rows) else 0


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollway-bench"


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _leave(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    raise SystemExit(main(sys.argv[1:]))
