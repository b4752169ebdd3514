"""Tells the limiter of accounts that changed, from the rows that each change left in the ledger's outbox.

A row goes only after the limiter took it: a crash or a silent limiter delays a change, and never loses one. Telling
twice is harmless, as a version never moves back; so every worker may empty the outbox.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from gateway.ledger.accounts import AccountBook
from gateway.telemetry.log import log

Tell = Callable[[str, int], Awaitable[None]]
"""The limiter's `bump`: account id, version."""


async def apply_outbox(ledger: AccountBook, bump: Tell) -> int:
    """Empty the outbox; how many rows went. Raises what `bump` raises, and Fault(LEDGER_UNAVAILABLE)."""
    count = 0
    while bumps := await ledger.pending_bumps():
        newest = {row.account_id: row.version for row in bumps}
        await asyncio.gather(*[bump(account_id, version) for account_id, version in newest.items()])
        await ledger.done_bumps([row.row_id for row in bumps])
        count += len(bumps)
    return count


async def run_outbox(ledger: AccountBook, bump: Tell, *, interval_s: float = 1.0) -> NoReturn:
    """Empty the outbox again and again, until cancelled. The first failure of a row of failures is logged."""
    failing = False
    while True:
        try:
            await apply_outbox(ledger, bump)
            failing = False
        except Exception as error:  # noqa: BLE001  # a background task: it must outlive whatever goes wrong
            if not failing:
                log.warning("outbox_failed", detail=repr(error))
            failing = True
        await asyncio.sleep(interval_s)
