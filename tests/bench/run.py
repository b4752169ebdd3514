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
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from tests.bench.client import Client
from tests.bench.envoy import ENVOY
from tests.bench.measure import Measure
from tests.bench.nginx import NGINX, nginx_missing
from tests.bench.peers import BARE, DIRECT, LEAN, LITELLM
from tests.bench.processes import BenchError, Cores, free_port, pinned, running, two_cores, wait_until_200
from tests.bench.programs import Programs, compiled
from tests.bench.report import Row, as_json, machine, notes, table
from tests.bench.soak import soaking
from tests.bench.study import Finding, Study, investigate
from tests.bench.study_bandwidth import BANDWIDTH
from tests.bench.study_beside import MIXED, PROMPT100K
from tests.bench.study_streams import STREAMS2000
from tests.bench.study_workers import WORKERS2
from tests.bench.target import Candidate, Ground
from tests.bench.tls_front import start_tls_front
from tests.bench.tollway import TOLLWAY
from tests.bench.workloads import CHUNKS, PATH, QUICK, SPACING_MS, TLS_PATH, WORKLOADS, json_body

OUT = Path(__file__).resolve().parent / "out"
CANDIDATES = {each.name: each for each in (DIRECT, BARE, LEAN, TOLLWAY, NGINX, ENVOY, LITELLM)}
STUDIES = {study.name: study for study in (PROMPT100K, MIXED, STREAMS2000, WORKERS2, BANDWIDTH)}
SUBJECTS = (*WORKLOADS, *STUDIES)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The flags, checked."""
    parser = argparse.ArgumentParser(description="CPU per request and per chunk: direct, bare proxies, full duty.")
    parser.add_argument("--quick", action="store_true", help="fewer workloads, one round: under a minute")
    parser.add_argument("--only", type=_names(SUBJECTS), metavar="NAME,…", help=f"of {', '.join(SUBJECTS)}")
    opt_in = [name for name, candidate in CANDIDATES.items() if candidate.opt_in]
    parser.add_argument("--target", type=_names(opt_in), default=[], metavar="NAME,…", help=f"add {', '.join(opt_in)}")
    parser.add_argument("--skip", type=_names(CANDIDATES), default=[], metavar="NAME,…", help="leave targets out")
    parser.add_argument("--rounds", type=int, help="how often each workload is run (3; quick: 1)")
    parser.add_argument("--seconds", type=float, help="how long each run loads (1.5; quick: 1)")
    parser.add_argument("--soak", type=float, metavar="SECONDS", help="Tollway alone, for so long, under 70 %% load")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure, with ratios")
    flags = parser.parse_args(argv)
    flags.rounds = flags.rounds or (1 if flags.quick else 3)
    flags.seconds = flags.seconds or (1.0 if flags.quick else 1.5)
    if flags.only is None:
        flags.only = [] if flags.soak else list(QUICK if flags.quick else SUBJECTS)
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


@contextmanager
def ground_of(flags: argparse.Namespace, programs: Programs, cores: Cores) -> Iterator[Ground]:
    """The mock, and what stands before it. All that is started on the ground stops when the block ends."""
    with ExitStack() as stack:
        stack.enter_context(pinned(cores.others))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twb")))
        port = free_port()
        command: list[str | Path] = [programs.mock, "-p", str(port), "-s", str(SPACING_MS)]
        mock = stack.enter_context(running(command, cores.others, scratch / "mock.log"))
        wait_until_200(mock, scratch / "mock.log", port, PATH, json_body(), {})
        ground = Ground(stack, scratch, cores, port, mock.pid, _cache())
        over_tls = [name for name in flags.only if name in WORKLOADS and WORKLOADS[name].path == TLS_PATH]
        if over_tls and (missing := nginx_missing()):
            _say(f"{', '.join(over_tls)} is skipped: nothing to end TLS before the mock: {missing}")
        elif over_tls:
            ground = replace(ground, tls=start_tls_front(ground))
        yield ground


def take_turns(ground: Ground, client: Client, candidates: Sequence[Candidate], flags: argparse.Namespace) -> list[Row]:
    """Every workload on every target, round by round."""
    workloads = [WORKLOADS[name] for name in flags.only if name in WORKLOADS]
    if not workloads:
        return []
    with ground.room("table") as room:
        targets = []
        for candidate in candidates:
            targets.append(candidate.start(room))
            _say(f"{candidate.name} is up: {candidate.duty}")
        measure = Measure(room, client)
        runs = [(Row(each, target.name, []), target) for each in workloads for target in targets if target.serves(each)]
        for turn in range(flags.rounds):
            for row, target in runs:
                row.runs.append(measure.run(target, row.workload, flags.seconds))
            _say(f"round {turn + 1} of {flags.rounds} is done")
    return [row for row, _ in runs]


def studies(flags: argparse.Namespace) -> list[Study]:
    """Those that were asked for."""
    asked = [STUDIES[name] for name in flags.only if name in STUDIES]
    return [*asked, soaking(flags.soak)] if flags.soak else asked


def show(rows: Sequence[Row], findings: Sequence[Finding], flags: argparse.Namespace) -> None:
    """Print the tables and their notes; write the JSON where asked to."""
    if rows:
        print("\n".join([table(rows), "", *notes(rows)]))
    for finding in (each for each in findings if each.rows):
        print(f"\n{finding.table()}")
    if flags.json:
        settings = {"rounds": flags.rounds, "seconds": flags.seconds, "spacing_ms": SPACING_MS, "chunks": CHUNKS}
        result = as_json(rows, settings)
        result["studies"] = {each.study.name: {"meaning": each.study.meaning, "rows": each.rows} for each in findings}
        flags.json.write_text(json.dumps(result, indent=1) + "\n")


def bench(flags: argparse.Namespace, programs: Programs, cores: Cores) -> int:
    """Start everything, take every run, stop everything; the exit status. Raises BenchError where something fails."""
    candidates = chosen(flags)
    with ground_of(flags, programs, cores) as ground:
        client = Client(programs.load, cores.others, ground.scratch)
        rows = take_turns(ground, client, candidates, flags)
        findings = [investigate(study, ground, client, candidates, _say) for study in studies(flags)]
    show(rows, findings, flags)
    problems = [row.problems for row in rows] + [finding.problems for finding in findings]
    return 1 if any(problems) else 0


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
        return bench(flags, programs, cores)
    except BenchError as error:
        _say(f"failed: {error}")
        return 1


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollway-bench"


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _leave(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    raise SystemExit(main(sys.argv[1:]))
