"""`tollway db set-aside`: usage that could not be read as events; with `--replay`, tried again, as after an upgrade.

Safe while the gateway runs, and to be run again: each entry becomes its one event or stays, in one transaction. An
account's live counters are then rebuilt from the ledger by its next request.
"""

import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from gateway.cli.connections import Connections, connected
from gateway.cli.moment import shown
from gateway.cli.operator import operator
from gateway.cli.table import table
from gateway.domain.usage import UsageEvent
from gateway.ledger.set_aside import SetAside
from gateway.metering.flusher import event_of

PAGE = 500
SHOWN_CHARS = 80


async def list_or_replay(file: Path, *, replay: bool) -> None:
    """Print what is set aside, after trying it again where asked to. Raises BadInput, and Fault without the ledger."""
    async with connected(file) as connections:
        if replay:
            await _replay(connections)
        rows = [
            (each.digest.hex()[:12], _moment(each), len(each.payload), each.reason[:SHOWN_CHARS])
            async for each in _entries(connections)
        ]
    print(table(("ENTRY", "SET ASIDE", "BYTES", "WHY"), rows) if rows else "nothing is set aside")


async def _entries(connections: Connections) -> AsyncIterator[SetAside]:
    after = b""
    while page := await connections.ledger.list_set_aside(after, PAGE):
        for entry in page:
            yield entry
        after = page[-1].digest


async def _replay(connections: Connections) -> None:
    by, now_ms = operator(), time.time_ns() // 1_000_000
    taken, accounts = 0, set()
    async for entry in _entries(connections):
        event = event_of(entry.payload)
        if isinstance(event, UsageEvent):
            taken += await connections.ledger.replay_set_aside(entry.payload, event, by, now_ms)
            accounts.add(event.account_id)
    print(f"replayed: {taken} new events")
    async with connections.live() as live:
        if live is None:
            print("Redis does not answer: run `tollway db verify --repair` once it does", file=sys.stderr)
            return
        for account_id in accounts:
            await live.limiter.forget(account_id)


def _moment(entry: SetAside) -> str:
    return shown(datetime.fromtimestamp(entry.set_aside_ms // 1000, UTC))
