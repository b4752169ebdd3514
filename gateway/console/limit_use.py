"""How much of a limit is used: by the limiter, which knows of running requests, else by the ledger."""

from collections.abc import Mapping

from gateway.domain.limits import Limit, Tier
from gateway.domain.usage import Usage, amount
from gateway.domain.windows import span
from gateway.ledger.ledger import Ledger

Counters = Mapping[str, tuple[int, int]]
"""By a counter's name, the start of its window in Unix seconds and what is used of it."""


async def used_of(
    ledger: Ledger, account_id: str, tier: Tier, limit: Limit, now_s: int, counters: Counters
) -> tuple[int, int]:
    """What the account used of a limit of its tier in the window that runs at `now_s`, and that window's end."""
    counter, start_s, end_s = span(tier, limit, now_s)
    if counter in counters:
        counted_from_s, used = counters[counter]
        return (used if counted_from_s >= start_s else 0), end_s
    totals = await ledger.totals(account_id, start_s, end_s)
    return amount(limit.unit, totals.requests, Usage(totals.input_tokens, totals.output_tokens)), end_s
