"""A stand at rest: whatever became of its requests, nothing is held, nothing runs, and every count agrees."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.domain.limits import Unit
from gateway.domain.usage import UsageEvent
from gateway.ledger.ledger import Ledger
from tests.support.stand import CHAT, Stand
from tests.support.until import until
from tests.support.valkey import ValkeyServer

PARTITIONS = 8
PROMPT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"authorization": f"Bearer {key}"}


def post(key: str, path: str = CHAT, **fields: Any) -> bytes:
    """A chat request as bytes on the wire."""
    body = json.dumps(PROMPT | fields).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def wire(here: Stand) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection to the gateway; it ends without a word where the test left it open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def head_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """The next answer's status and fields."""
    line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    pairs = [text.partition(":") for text in lines]
    return int(line.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """The next answer, whole, of a known length."""
    status, fields = await head_of(reader)
    return status, fields, await reader.readexactly(int(fields.get("content-length", "0")))


async def events_of(ledger: Ledger, account_id: str = "acme") -> list[UsageEvent]:
    """An account's events, oldest first."""
    events = await ledger.recent_events(account_id, 10_000)
    return sorted(events, key=lambda event: event.admitted_ms)


async def at_rest(here: Stand, valkey: ValkeyServer, *accounts: str) -> None:
    """Wait until nothing is held, runs or travels; then the counters of each account must be the ledger's."""
    gateway = here.gateway

    async def empty() -> bool:
        # A Redis held up by a busy machine may count as away: what was admitted without it waits in the journal.
        if gateway._departures.running or gateway._limiter.unsettled or gateway._outage.journal.size:
            return False
        return not any(count(valkey, kind) for kind in ("HLEN holds", "ZCARD leases", "XLEN events"))

    await until(empty)
    for account in accounts or ("acme",):
        await assert_counted(here, account)


def count(valkey: ValkeyServer, kind: str) -> int:
    """A size over all partitions: `XLEN events`, `HLEN holds` or `ZCARD leases`."""
    command, key = kind.split()
    replies = [valkey.call(f"{command} tw:{{{number}}}:{key}".encode()) for number in range(PARTITIONS)]
    return sum(int(reply.strip().removeprefix(b":")) for reply in replies)


async def flushed(valkey: ValkeyServer) -> None:
    """Wait until every event that was settled is in the ledger."""

    async def empty() -> bool:
        return count(valkey, "XLEN events") == 0

    await until(empty)


async def assert_counted(here: Stand, account: str) -> None:
    """Each live counter is what the ledger says of its window, and nothing runs."""
    state = await here.gateway._limiter.peek(account)
    if state is None:
        return
    _, running, counters = state
    assert running == 0
    for name, (start_s, used) in counters.items():
        totals = await here.ledger.totals(account, start_s, 2**40)
        unit = Unit(name.partition("/")[0])
        assert used == (totals.requests if unit is Unit.REQUESTS else totals.tokens), (name, used, totals)
