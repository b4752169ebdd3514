"""Import accounts from a file of another system: CSV, JSON (one array) or JSON lines, by the ending of its name.

What can't be used is told by its line and left out; the rest is taken, and the exit status is then 1. The same file
again changes nothing, so that an import which was cut off is taken up by running it once more.
"""

import argparse
import asyncio
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import msgspec

from gateway.cli.bad_input import BadInput
from gateway.cli.connections import Connections, connected
from gateway.cli.import_arrivals import Importer
from gateway.cli.import_columns import imported
from gateway.cli.import_files import records
from gateway.cli.operator import operator
from gateway.cli.progress import Progress
from gateway.cli.verbs import add_file
from gateway.domain.faults import Fault
from gateway.ledger.arrivals import Arrival
from gateway.quota.resp import RedisError
from gateway.settings.tiers import rules_of, tiers_of

BATCH = 500
_MOST_TOLD = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, and whether to write."""
    add_file(parser)
    parser.add_argument("source", metavar="FILE", type=Path, help="a .csv, .json or .jsonl file")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done, and do nothing")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    return asyncio.run(_run(args))


async def _run(args: argparse.Namespace) -> int:
    try:
        stream = args.source.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise BadInput(f"{args.source}: {error.strerror}") from error
    with stream:
        async with connected(args.file) as connections:
            work = _Import(connections, args.source, args.dry_run)
            await work.run(stream)
            if work.changed and not args.dry_run:
                await connections.tell_gateways()
    print(work.summary())
    return 1 if work.left_out else 0


class _Import:
    """One run over one file."""

    def __init__(self, connections: Connections, path: Path, dry_run: bool) -> None:
        settings, self._now_ms = connections.settings, time.time_ns() // 1_000_000
        self._connections = connections
        self._path = path
        self._dry_run = dry_run
        self._importer = Importer(tiers_of(settings), rules_of(settings), settings.default_tier, self._now_ms // 1000)
        self._batch: dict[str, tuple[int, Arrival]] = {}
        self._unknown: set[str] = set()
        self._moved: list[str] = []
        self._counts = dict.fromkeys(("records", "made", "changed", "again"), 0)
        self._told = set[int]()
        self.left_out = 0

    async def run(self, stream: TextIO) -> None:
        """Take the whole file."""
        progress = Progress(os.fstat(stream.fileno()).st_size, "records")
        try:
            for line, record in records(self._path, stream):
                self._counts["records"] += 1
                await self._take(line, record)
                progress.at(stream.buffer.tell(), self._counts["records"])
        except UnicodeDecodeError as error:
            self._counts["records"] += 1
            self._leave_out(self._counts["records"], f"no UTF-8 from here on: {error.reason}")
        except ValueError as error:
            raise BadInput(str(error)) from error
        await self._flush()
        progress.close(self._counts["records"])
        await self._forget()

    @property
    def changed(self) -> int:
        """How many accounts that were there are other now: gateways have to be told."""
        return self._counts["changed"]

    def summary(self) -> str:
        """What was done."""
        counts, would = self._counts, "would be " if self._dry_run else ""
        same = counts["records"] - counts["made"] - counts["changed"] - counts["again"] - self.left_out
        again = f", {counts['again']:,} of accounts that stand above" if counts["again"] else ""
        unknown = f"\ncolumns not used: {', '.join(sorted(self._unknown))}" if self._unknown else ""
        return (
            f"{counts['records']:,} records: {counts['made']:,} accounts {would}made, {counts['changed']:,} {would}"
            f"changed, {same:,} as they were{again}, {self.left_out:,} left out{unknown}"
        )

    async def _take(self, line: int, record: dict[str, object] | ValueError) -> None:
        try:
            if isinstance(record, ValueError):
                raise record
            arrival = self._importer.arrival(imported(record, self._unknown))
        except (ValueError, msgspec.ValidationError) as error:
            self._leave_out(line, str(error))
            return
        if arrival.account.id in self._batch:
            await self._flush()
        self._batch[arrival.account.id] = line, arrival
        if len(self._batch) >= BATCH:
            await self._flush()

    async def _flush(self) -> None:
        if not self._batch:
            return
        batch, self._batch = self._batch, {}
        arrivals = [arrival for _, arrival in batch.values()]
        taken = await self._connections.ledger.take_arrivals(arrivals, operator(), self._now_ms, dry_run=self._dry_run)
        again = self._again({*batch} - taken.refused.keys())
        self._counts["again"] += len(again)
        self._counts["made"] += len({*taken.made} - again)
        self._counts["changed"] += len({*taken.changed} - again)
        self._moved += taken.moved
        for account_id, why in taken.refused.items():
            self._leave_out(batch[account_id][0], why)

    def _again(self, account_ids: set[str]) -> set[str]:
        """Those that a dry run has told of: the ledger doesn't know of them yet, as it will when they are imported."""
        if not self._dry_run:
            return set()
        again = {account_id for account_id in account_ids if hash(account_id) in self._told}
        self._told.update(map(hash, account_ids))
        return again

    async def _forget(self) -> None:
        """Live counts of accounts whose usage became more are made anew from the ledger."""
        if not self._moved or self._dry_run:
            return
        async with self._connections.live() as live:
            if live is None:
                return
            with suppress(Fault, RedisError):
                for account_id in self._moved:
                    await live.limiter.forget(account_id)

    def _leave_out(self, line: int, why: str) -> None:
        self.left_out += 1
        if self.left_out <= _MOST_TOLD:
            print(f"{self._path}:{line}: {why}", file=sys.stderr)
        if self.left_out == _MOST_TOLD:
            print("what else is left out is counted only", file=sys.stderr)
