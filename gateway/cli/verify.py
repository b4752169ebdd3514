"""`tollway db verify`: whether Redis's counters, the ledger's sums and its events all say the same.

Safe while the gateway runs, with `--repair` too: sums are mended by the difference, and an account whose counters
drifted is rebuilt by its next request. Exit status 1 where something differs, or still does after the repair.
"""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from gateway.cli.bad_input import BadInput
from gateway.cli.connections import Connections, Live, connected
from gateway.cli.operator import operator
from gateway.cli.table import table
from gateway.console.drift import LOOKS, Difference, Drift
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.ledger.tables import SUMS
from gateway.ledger.verification import SumDrift
from gateway.snapshot import Plan

PAGE = 500
SAME, DIFFERS = 0, 1


async def verify(file: Path, *, repair: bool) -> int:
    """Print what differs; the exit status. Raises BadInput, and Fault where Redis or the ledger is away."""
    async with connected(file) as connections, connections.live() as live:
        if live is None:
            raise Fault(LIMITER_UNAVAILABLE, "Redis does not answer: its counters can't be verified")
        sums, counters = await _found(connections, live)
        print(_report(sums, counters) if sums or counters else "no drift")
        print(await _waiting(connections, live))
        if not (sums or counters):
            return SAME
        if not repair:
            return DIFFERS
        await _mend(connections, live, counters)
        sums, counters = await _found(connections, live)
        print(f"after the repair:\n{_report(sums, counters)}" if sums or counters else "mended: no drift")
        return DIFFERS if sums or counters else SAME


async def _found(connections: Connections, live: Live) -> tuple[list[SumDrift], list[Difference]]:
    sums = await connections.ledger.sum_drifts()
    drift = Drift(live.survey, live.limiter, connections.ledger)
    counters: list[Difference] = []
    after = ""
    while page := await connections.ledger.list_accounts(after, PAGE):
        for account in page:
            if (await live.survey.of(account.id)).version is None:
                continue
            if (plan := await _plan(connections, account.id)) is not None:
                counters += await drift.of(account.id, plan)
        after = page[-1].id
    return sums, counters + await _leases(live)


async def _plan(connections: Connections, account_id: str) -> Plan | None:
    """The account's own; None where the settings lack its tier, so that no request of it is admitted either."""
    standing = await connections.ledger.standing(account_id)
    try:
        return Plan(connections.entitled_tier(standing, int(time.time())))
    except BadInput as error:
        print(f"tollway: account {account_id} is left out: {error}", file=sys.stderr)
        return None


async def _leases(live: Live) -> list[Difference]:
    """A hold without a lease would never be reaped."""
    standing: set[Difference] = set()
    for look in range(LOOKS):
        sizes = enumerate(await live.survey.holds_and_leases())
        found = {
            Difference("-", f"holds and leases of partition {partition}", holds, leases)
            for partition, (holds, leases) in sizes
            if holds != leases
        }
        standing = found if look == 0 else standing & found
    return sorted(standing, key=lambda each: each.what)


async def _mend(connections: Connections, live: Live, counters: list[Difference]) -> None:
    by, now_ms = operator(), time.time_ns() // 1_000_000
    await connections.ledger.mend_sums(by, now_ms)
    drifted: dict[str, list[Difference]] = {}
    for each in counters:
        if each.account_id != "-":
            drifted.setdefault(each.account_id, []).append(each)
    for account_id, found in drifted.items():
        await connections.ledger.audit_rebuilt(account_id, found, by, now_ms)
        await live.limiter.forget(account_id)


async def _waiting(connections: Connections, live: Live) -> str:
    """What is on its way, which is no drift."""
    journals = list((connections.deployment.data_dir / "journal").glob("*/*.segment"))
    rows = [
        ("events on their way to the ledger", await live.stream.backlog()),
        ("journal segments to be replayed", len(journals)),
        ("changes that Redis is to be told", len(await connections.ledger.pending_bumps())),
        ("entries set aside", await connections.ledger.set_aside_count()),
    ]
    return "\n" + table(("WAITING", "COUNT"), rows)


def _report(sums: list[SumDrift], counters: list[Difference]) -> str:
    tables = []
    if counters:
        rows = [(each.account_id, each.what, each.live, each.true, each.live - each.true) for each in counters]
        tables.append(table(("ACCOUNT", "LIVE", "IS", "SHOULD BE", "DRIFT"), rows))
    if sums:
        kept = [
            (drift.account_id, drift.table, _moment(drift.start_s), " ".join(drift.rest_of_key) or "-", name, -lacking)
            for drift in sums
            for name, lacking in zip(SUMS, drift.lacking, strict=True)
            if lacking
        ]
        tables.append(table(("ACCOUNT", "SUMS", "FROM", "OF", "COUNT", "DRIFT"), kept))
    return "\n\n".join(tables)


def _moment(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M UTC")
