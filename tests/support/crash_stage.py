"""A running tree whose workers can be killed at any step, and all that its callers and its upstream saw.

Each crash point has an account of its own, so that what it cost can be told apart.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis

from gateway.ledger.ledger import Ledger
from gateway.quota.keys import Keyspace
from tests.support import outside
from tests.support.crash_points import POINTS, CrashPoint
from tests.support.odd_peer import Peer, Script, Visit, odd_peer
from tests.support.openai_wire import DONE, STREAM_HEAD, chunk, completion, framed, http, usage_chunk
from tests.support.stand import CHAT
from tests.support.truth_balance import PROMPT, bearer
from tests.support.truth_gateway import PARTITIONS, SETTINGS, Tollway
from tests.support.until import until

INPUT, OUTPUT = 40, 6
WITHIN_S = 45
LEASED = SETTINGS.replace("flush_interval_ms: 20", "flush_interval_ms: 20, hold_lease_s: 5, extend_slice_tokens: 16")
CRASHING = LEASED.replace("timeout_ms: 5000", "timeout_ms: 400, breaker_longest_pause_ms: 300")
STORES = {
    "sqlite": "gateway.ledger.sqlite_store:SqliteStore",
    "postgresql": "gateway.ledger.postgres_store:PostgresStore",
}


@dataclass(slots=True)
class CrashStage:
    """`said`: tokens that the upstream put out, by request id; `asked_by`: whose they are; `whole`: answered whole."""

    tollway: Tollway
    fuses: Path
    keys: dict[str, str]
    said: dict[str, int] = field(default_factory=dict)
    asked_by: dict[str, str] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    going_on: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is not set, held streams go on."""

    def arm(self, point: CrashPoint) -> None:
        """Have the next process that comes there kill itself."""
        (self.fuses / point.name).touch()

    def armed(self, point: CrashPoint) -> bool:
        """Whether nobody has come there yet."""
        return (self.fuses / point.name).exists()

    async def burned(self, point: CrashPoint) -> None:
        """Wait until a process has died there."""

        async def gone() -> bool:
            return not self.armed(point)

        await until(gone, WITHIN_S)

    async def ask(self, account: str, *, streamed: bool = False, held: bool = False) -> None:
        """One request on a connection of its own; an answer that has all of its end is noted."""
        body = PROMPT | {"user": f"{account}/held" if held else account, "stream": streamed, "max_tokens": 8}
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(base_url=self.tollway.url, timeout=WITHIN_S, trust_env=False) as client:
                answer = await client.post(CHAT, json=body, headers=bearer(self.keys[account]))
                if answer.status_code == 200 and (not streamed or "[DONE]" in answer.text):
                    self.whole.add(answer.headers["x-request-id"])

    async def round(self, account: str) -> None:
        """Some requests at once, streamed and not."""
        await asyncio.gather(*[self.ask(account, streamed=number % 2 == 0) for number in range(4)])

    @contextlib.asynccontextmanager
    async def held_stream(self, account: str) -> AsyncIterator[None]:
        """A stream that goes on until the block ends, and has begun when it starts."""
        self.going_on.clear()
        streams: list[asyncio.Task[None]] = []

        async def begun() -> bool:
            # It may have met a worker that was about to die.
            if not streams or streams[-1].done():
                streams.append(asyncio.create_task(self.ask(account, streamed=True, held=True)))
            return any(said for request_id, said in self.said.items() if self.asked_by[request_id] == account)

        try:
            await until(begun, WITHIN_S)
            yield
        finally:
            self.going_on.set()
            await asyncio.gather(*streams)

    async def end_lease(self, account: str) -> None:
        """Make the account's holds due to be reaped, until they are."""
        keys = Keyspace("tw", PARTITIONS).of(account)
        async with Redis.from_url(self.tollway.redis_url) as redis:

            async def reaped() -> bool:
                ids = [hold.request_id for hold in await self.tollway.holds() if hold.account_id == account]
                for request_id in ids:
                    await redis.zadd(keys.leases, {request_id: 0}, xx=True)
                return not ids

            await until(reaped, WITHIN_S)

    async def end_all_leases(self) -> None:
        """Nobody runs: what is held belongs to the dead, and need not wait for its time."""
        async with Redis.from_url(self.tollway.redis_url, decode_responses=True) as redis:
            for keys in Keyspace("tw", PARTITIONS).everywhere():
                for request_id in await redis.zrange(keys.leases, 0, -1):
                    await redis.zadd(keys.leases, {str(request_id): 0}, xx=True)

    async def poison(self) -> None:
        """Put what is no event on the stream."""
        async with Redis.from_url(self.tollway.redis_url) as redis:
            await redis.xadd(Keyspace("tw", PARTITIONS).everywhere()[0].events, {"e": b"no event"})

    async def change(self, account: str) -> None:
        """Move the account to another tier, as another process does."""
        ledger = Ledger.open(self.tollway.database_url)
        try:
            await ledger.set_tier(account, "metered", 1)
            await ledger.set_tier(account, "wide", 2)
        finally:
            await ledger.close()

    async def untold(self) -> int:
        """Changes that the limiter wasn't told of."""
        ledger = Ledger.open(self.tollway.database_url)
        try:
            return len(await ledger.pending_bumps())
        finally:
            await ledger.close()

    def journals(self) -> list[Path]:
        """Segments that wait to be replayed."""
        return list(outside.journal(self.tollway.data_dir))


def _upstream(here: dict[str, Any]) -> Script:
    """Answers at once, or goes on until told to end; keeps the truth."""

    async def script(visit: Visit) -> None:
        while True:
            request = await visit.request()
            stage: CrashStage = here["stage"]
            body = json.loads(request.body)
            request_id = request.values(b"x-request-id")[0].decode()
            account, _, held = body["user"].partition("/")
            stage.asked_by[request_id] = account
            stage.said[request_id] = 0
            if body["stream"]:
                await _stream(visit, stage, request_id, held=bool(held))
            else:
                stage.said[request_id] = OUTPUT
                await visit.say(http(completion(prompt=INPUT, output=OUTPUT)))

    return script


async def _stream(visit: Visit, stage: CrashStage, request_id: str, *, held: bool) -> None:
    words = 60 if held else 1
    await visit.say(STREAM_HEAD)
    while stage.said[request_id] < OUTPUT or (held and not stage.going_on.is_set()):
        if visit.writer.transport.is_closing():
            raise ConnectionResetError
        stage.said[request_id] += words
        await visit.say(framed(chunk("word " * words)))
        await asyncio.sleep(0.02 if held else 0.002)
    if visit.writer.transport.is_closing():
        raise ConnectionResetError
    end = chunk(None, finish="stop") + usage_chunk(INPUT, stage.said[request_id]) + DONE
    await visit.say(framed(end) + framed(b""))


@contextlib.asynccontextmanager
async def crash_stage(directory: Path, database_url: str) -> AsyncIterator[CrashStage]:
    """Two workers, an account for each point; no fuse is armed yet."""
    fuses = directory / "fuses"
    fuses.mkdir()
    here: dict[str, Any] = {}
    peer: Peer
    async with odd_peer(_upstream(here)) as peer:
        tollway = Tollway(directory, peer.port, workers=2, settings=CRASHING, database_url=database_url)
        tollway.program = "tests.support.crashing"
        tollway.environment = {
            "TOLLWAY_CRASH_FUSES": str(fuses),
            "TOLLWAY_CRASH_STORE": STORES[database_url.partition(":")[0]],
        }
        with tollway:
            keys = await tollway.accounts({point.name: "wide" for point in POINTS})
            here["stage"] = stage = CrashStage(tollway, fuses, keys)
            yield stage
