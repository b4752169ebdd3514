"""`make chaos`: random faults at random moments, from seeds that are printed, until one breaks a promise.

    make chaos ARGS="--seeds 200 --database postgresql"
    make chaos ARGS="--first 17 --seeds 1"              once more what seed 17 was
    make chaos ARGS="--mutant ack_before_commit"        a copy that is broken on purpose: how soon is it caught?
    make chaos ARGS="--outage 30"                       Valkey hangs for 30 s under load

Exits with 0 where every seed passed (or, with --mutant, one failed).
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.chaos import outage
from tests.chaos.mutants import MUTANTS, broken_copy
from tests.chaos.run_one import Report, play
from tests.chaos.verdict import SHOWN_AT_MOST

DATABASES = ("sqlite", "postgresql")


def main() -> int:
    """Play the seeds; the exit status."""
    options = _options()
    if options.outage:
        return _outage(options)
    with tempfile.TemporaryDirectory(prefix="twmutant") as directory:
        program_dir = broken_copy(options.mutant, Path(directory)) if options.mutant else Path.cwd()
        reports = _reports(options, program_dir)
        return _until_caught(reports, options.mutant) if options.mutant else _all(reports)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20, help="how many (20)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (1)")
    parser.add_argument("--database", choices=DATABASES, default="sqlite")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time (2)")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="", help="run a copy with this defect")
    parser.add_argument("--outage", type=float, default=0, help="freeze Valkey for so many seconds, once")
    return parser.parse_args()


def _outage(options: argparse.Namespace) -> int:
    seen = outage.play(options.outage, options.database)
    print(f"the longest wait beyond the upstream's own: {seen.longest_s:.3f} s, of those who asked before its return")
    print(f"of those who asked after it: {seen.longest_after_s:.3f} s")
    for account, told in seen.told.items():
        print(f"meanwhile {account} was told {dict(sorted(told.items()))}")
    print(f"nothing was left to settle or to flush {seen.agreed_s:.2f} s after the last request")
    for text in seen.wrong[:SHOWN_AT_MOST]:
        print(f"    {text}")
    return 1 if seen.wrong else 0


def _reports(options: argparse.Namespace, program_dir: Path) -> Iterator[Report]:
    seeds = range(options.first, options.first + options.seeds)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(play, seed, options.database, program_dir) for seed in seeds]
        try:
            for report in waiting:
                yield report.result()
        finally:
            for report in waiting:
                report.cancel()


def _all(reports: Iterator[Report]) -> int:
    started_s, seen = time.monotonic(), [_told(report) for report in reports]
    failed = [report.seed for report in seen if report.wrong]
    print(
        f"{len(seen) - len(failed)} of {len(seen)} seeds passed: {sum(report.requests for report in seen)} requests, "
        f"{sum(report.events for report in seen)} events, {sum(len(report.happened) for report in seen)} faults, "
        f"{sum(report.forgiven for report in seen)} requests lost with a FLUSHALL, "
        f"{time.monotonic() - started_s:.0f} s; failed: {failed or 'none'}"
    )
    return 1 if failed else 0


def _until_caught(reports: Iterator[Report], mutant: str) -> int:
    for number, report in enumerate(reports, 1):
        if _told(report).wrong:
            print(f"{mutant}: caught by seed {report.seed}, after {number} seeds")
            return 0
    print(f"{mutant}: not caught")
    return 1


def _told(report: Report) -> Report:
    verdict = "BROKEN" if report.wrong else "ok"
    print(
        f"seed {report.seed}: {verdict}, {report.requests} requests, {report.events} events, {report.took_s:.1f} s; "
        f"{', '.join(report.happened)}",
        flush=True,
    )
    for text in report.wrong[:SHOWN_AT_MOST]:
        print(f"    {text}", flush=True)
    if len(report.wrong) > SHOWN_AT_MOST:
        print(f"    and {len(report.wrong) - SHOWN_AT_MOST} more", flush=True)
    return report


if __name__ == "__main__":
    sys.exit(main())
