"""Two workers of `tollway serve` with short leases, and requests that run until the test lets them end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gateway.domain.usage import UsageEvent
from gateway.settings.load import load
from gateway.settings.tiers import tier_of
from tests.support.odd_peer import Peer, Script, Visit, odd_peer
from tests.support.openai_wire import DONE, STREAM_HEAD, chunk, completion, framed, http, usage_chunk
from tests.support.truth_balance import post
from tests.support.truth_gateway import SETTINGS, Tollway
from tests.support.truth_verdict import live
from tests.support.until import until

LEASE_S = 5
PROMPT, ANSWER = 9, 4
MAX_TOKENS = 1000
"""More than a stream says while a test runs, however slow the machine."""

WITHIN_S = 30
LEASED = SETTINGS.replace("flush_interval_ms: 20", f"flush_interval_ms: 20, hold_lease_s: {LEASE_S}").replace(
    "concurrency: 9", "concurrency: 5"
)


@dataclass(slots=True, eq=False)
class Call:
    """One request under way, on a connection of its own."""

    account: str
    streamed: bool
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    worker: str = ""


@dataclass(slots=True)
class Stage:
    """The running tree, its upstream, and who asked."""

    tollway: Tollway
    upstream: Peer
    keys: dict[str, str]
    said: dict[str, int]
    calls: list[Call] = field(default_factory=list)

    async def ask(self, account: str, *, streamed: bool) -> Call:
        """Send a request; the upstream will not answer it before it is released."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.tollway.port)
        call = Call(account, streamed, reader, writer)
        self.calls.append(call)
        writer.write(post(self.keys[account], stream=streamed, max_tokens=MAX_TOKENS))

        async def accepted() -> bool:
            call.worker = self.tollway.worker_of(writer.get_extra_info("sockname")[1])
            return call.worker != ""

        await until(accepted)
        return call

    async def fill(self) -> None:
        """As many requests as the narrow tier lets run, others, and some on each worker; the upstream has them all."""
        for number in range(5):
            await self.ask("narrow", streamed=number % 2 == 0)
        while len(self.calls) < 16 or {call.worker for call in self.calls} != {"worker 0", "worker 1"}:
            await self.ask("wide", streamed=len(self.calls) % 2 == 0)

        async def there() -> bool:
            return len(self.upstream.requests) == len(self.calls)

        await until(there)

    async def streams_told(self) -> None:
        """Wait until each stream's worker has given a sign of life that tells of its output."""

        async def told() -> bool:
            outputs = [hold.about.output_tokens for hold in await self.tollway.holds() if hold.about is not None]
            return sum(map(bool, outputs)) == sum(call.streamed for call in self.calls)

        await until(told)

    async def running(self, number: int, within_s: float = WITHIN_S) -> None:
        """Wait until so many requests hold something, by every count there is."""

        async def so_many() -> bool:
            left = await self.tollway.left_over()
            counted = [(await self.tollway.counters(account)).get("n", 0) for account in self.keys]
            return left["holds"] == left["leases"] == sum(counted) == number

        await until(so_many, within_s)

    def events(self) -> list[UsageEvent]:
        """The ledger's."""
        return self.tollway.events(set(self.keys))

    async def flushed(self) -> None:
        """Wait until the ledger has every event."""

        async def empty() -> bool:
            return (await self.tollway.left_over())["events"] == 0

        await until(empty)

    async def agreed(self) -> list[str]:
        """What of the live counters is not as the ledger has it."""
        settings = load(self.tollway.file, {})
        wrong = []
        for account in self.keys:
            tier = tier_of(account, settings.tiers[account])
            mine = [event for event in self.events() if event.account_id == account]
            wrong += live(tier, await self.tollway.counters(account), mine)
        return wrong

    def true_usage(self) -> dict[str, tuple[int, int]]:
        """Tokens in and out of each request by the upstream's own count."""
        return {request_id: (PROMPT, said) for request_id, said in self.said.items()}


def sums(events: list[UsageEvent]) -> dict[str, tuple[int, int]]:
    """Tokens in and out of each request, corrections added."""
    total: dict[str, tuple[int, int]] = {}
    for event in events:
        request_id = event.request_id.removesuffix("/late")
        before = total.get(request_id, (0, 0))
        total[request_id] = before[0] + event.input_tokens, before[1] + event.output_tokens
    return total


def _held_back(peer: Peer, said: dict[str, int]) -> Script:
    """Answers when released: streams say a word now and then until that. Notes what it said, by request id."""

    async def script(visit: Visit) -> None:
        request = await visit.request()
        request_id = request.values(b"x-request-id")[0].decode()
        streamed = b'"stream": true' in request.body
        said[request_id] = 0 if streamed else ANSWER
        peer.requests.append(request)
        if not streamed:
            await peer.release.wait()
            return await visit.say(http(completion(prompt=PROMPT, output=ANSWER)))
        await visit.say(STREAM_HEAD)
        while not peer.release.is_set() or not said[request_id]:
            await visit.say(framed(chunk("word ")))
            said[request_id] += 1
            await asyncio.sleep(0.2)
        end = chunk(None, finish="stop") + usage_chunk(PROMPT, said[request_id]) + DONE
        return await visit.say(framed(end) + framed(b""))

    return script


@asynccontextmanager
async def leased_stage(directory: Path) -> AsyncIterator[Stage]:
    """Two workers, whose holds live for `LEASE_S` without a sign of life."""
    peer, said = Peer(), dict[str, int]()
    async with odd_peer(_held_back(peer, said)) as listening:
        with Tollway(directory, listening.port, workers=2, settings=LEASED) as tollway:
            keys = await tollway.accounts({"wide": "wide", "narrow": "narrow"})
            here = Stage(tollway, peer, keys, said)
            yield here
            for call in here.calls:
                call.writer.transport.abort()
