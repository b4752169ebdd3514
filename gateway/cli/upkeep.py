"""`tollway accounts backfill` and `verify`: every account is looked at, a page at a time in memory."""

from gateway.cli.operator import operator
from gateway.cli.progress import Progress
from gateway.console import admin_upkeep
from gateway.console.admin_desk import Desk


async def backfill(desk: Desk, *, dry_run: bool) -> None:
    """Give accounts what they lack; print how many."""
    filled = seen = 0
    progress = Progress(await desk.ledger.count_accounts(), "accounts")
    async for standing in admin_upkeep.standings(desk):
        seen += 1
        filled += await admin_upkeep.backfill(desk, standing, operator(), dry_run=dry_run)
        progress.at(seen, seen)
    progress.close(seen)
    if filled and not dry_run:
        await desk.tell_gateways()
    print(f"{seen:,} accounts: {filled:,} {'would be ' if dry_run else ''}given the default tier")


async def verify(desk: Desk) -> int:
    """Print what is wrong with any account, a line each; the exit status."""
    wrong = seen = 0
    progress = Progress(await desk.ledger.count_accounts(), "accounts")
    async for standing in admin_upkeep.standings(desk):
        seen += 1
        for text in admin_upkeep.wrong_with(desk, standing):
            wrong += 1
            print(f"{standing.account.id}: {text}")
        progress.at(seen, seen)
    progress.close(seen)
    print(f"{seen:,} accounts, {wrong:,} findings")
    return 1 if wrong else 0
