"""The flusher between a real usage stream and a real ledger."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from gateway.domain.faults import LEDGER_UNAVAILABLE, LIMITER_UNAVAILABLE, Fault
from gateway.domain.stream import Entry
from gateway.domain.usage import UsageEvent
from gateway.ledger.ledger import Ledger
from gateway.metering.flusher import BATCH, Flusher
from gateway.quota.resp import RedisLink
from gateway.quota.usage_stream import RedisUsageStream
from gateway.settings.model import Database
from tests.support.ledgers import NOON_MS, an_event, packed
from tests.support.until import until
from tests.support.valkey import ValkeyServer

NOON_S = NOON_MS // 1000
PARTITIONS = 2
PATIENCE_S = 30


class FailingLedger(Ledger):
    """The real ledger, which may be down, or fail over an event in a way that nobody thought of."""

    down = False
    cursed: frozenset[str] = frozenset()
    hanging: asyncio.Event | None = None
    batches: list[int]

    def __init__(self, url: str, options: Database | None = None) -> None:
        super().__init__(url, options)
        self.batches = []

    async def take_events(self, batch: Sequence[UsageEvent]) -> int:
        """Take them, or be down."""
        if self.down:
            raise Fault(LEDGER_UNAVAILABLE, "down")
        if self.hanging is not None:
            await self.hanging.wait()
        if any(event.request_id in self.cursed for event in batch):
            raise ValueError("nobody thought of this")
        self.batches.append(len(batch))
        return await super().take_events(batch)


class DyingStream(RedisUsageStream):
    """The real stream, to a flusher that dies between the ledger's commit and the stream's delete."""

    async def done(self, entries: Sequence[Entry]) -> bool:
        """Never arrives."""
        raise Fault(LIMITER_UNAVAILABLE, "killed")


@pytest.fixture
async def ledger(ledger_url: str) -> AsyncIterator[FailingLedger]:
    """An empty ledger."""
    opened = FailingLedger.open(ledger_url)
    yield opened
    await opened.close()


@pytest.fixture
async def link(valkey: ValkeyServer) -> AsyncIterator[RedisLink]:
    """An open link to an empty server."""
    opened = RedisLink(valkey.url, timeout_s=10)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def stream(link: RedisLink) -> RedisUsageStream:
    """The stream that the flusher under test reads."""
    return RedisUsageStream(link, "tw", PARTITIONS)


async def put(link: RedisLink, payloads: Sequence[bytes]) -> None:
    """Onto the stream, spread over its partitions."""
    await asyncio.gather(
        *[
            link.call("XADD", f"tw:{{{number % PARTITIONS}}}:events", "*", "e", payload)
            for number, payload in enumerate(payloads)
        ]
    )


def events(count: int, start: int = 0) -> list[bytes]:
    """Payloads of that many events."""
    return [packed(an_event(f"r{number}")) for number in range(start, start + count)]


def flusher(
    stream: RedisUsageStream,
    ledger: Ledger,
    told: list[int] | None = None,
    owner: str = "one",
    interval_s: float = 60,
    forgotten: list[str] | None = None,
) -> Flusher:
    """A flusher that sleeps for a minute between reads, so that only what need not wait is seen."""
    told = [] if told is None else told

    async def forget(account_id: str) -> None:
        if forgotten is not None:
            forgotten.append(account_id)

    return Flusher(
        stream, ledger, owner=owner, interval_s=interval_s, on_flushed=lambda new, _: told.append(new), forget=forget
    )


async def count(ledger: Ledger) -> int:
    """Events in the sums of the hour."""
    return (await ledger.totals("acme", NOON_S, NOON_S + 3600)).events


async def test_events_move_from_stream_to_ledger(
    link: RedisLink, stream: RedisUsageStream, ledger: FailingLedger
) -> None:
    """Every settled request ends in the ledger, with every field, and leaves the stream."""
    event = an_event("r1", model="gpt-large", cached_tokens=9)
    told: list[int] = []
    await put(link, [packed(event), packed(event), packed(an_event("r2"))])

    assert await flusher(stream, ledger, told).drain(PATIENCE_S) == 0

    assert await ledger.event("r1") == event
    assert await count(ledger) == sum(told) == 2
    assert await stream.backlog() == 0
    for partition in range(PARTITIONS):
        assert (await link.call("XPENDING", f"tw:{{{partition}}}:events", "flusher"))[0] == 0


async def test_full_batches_follow_each_other_at_once(
    link: RedisLink, stream: RedisUsageStream, ledger: FailingLedger
) -> None:
    """After an outage a backlog of hours is worked off as fast as the ledger takes it, in bounded transactions."""
    await put(link, events(2 * BATCH + 500))
    running = asyncio.create_task(flusher(stream, ledger).run())

    await until(lambda: _is_empty(stream), within_s=40)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert ledger.batches == [BATCH, BATCH, 500]
    assert await count(ledger) == 2 * BATCH + 500


async def test_a_ledger_that_is_down_is_waited_for(
    link: RedisLink, stream: RedisUsageStream, ledger: FailingLedger
) -> None:
    """Usage that is settled while the database is down stands in the ledger once it is back, once each."""
    ledger.down = True
    await put(link, events(10))
    running = asyncio.create_task(flusher(stream, ledger, interval_s=0.01).run())
    await until(lambda: _pending(link, 10))
    await put(link, events(10, start=10))
    assert await stream.backlog() == 20

    ledger.down = False
    await until(lambda: _is_empty(stream))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert await count(ledger) == 20


async def test_a_flusher_killed_after_the_commit_counts_nothing_twice(
    link: RedisLink, stream: RedisUsageStream, ledger: FailingLedger
) -> None:
    """A gateway killed between commit and delete leaves entries that its successor takes over and counts once."""
    await put(link, events(30))
    dying = flusher(DyingStream(link, "tw", PARTITIONS), ledger, owner="dying")
    await dying.drain(0)
    assert await count(ledger) == 30
    assert await stream.backlog() == 30
    await link.call("DEL", "tw:flusher")  # the dead one's lease ends

    told: list[int] = []
    heir = flusher(RedisUsageStream(link, "tw", PARTITIONS, idle_ms=0), ledger, told, owner="heir")

    assert await heir.drain(PATIENCE_S) == 0
    assert told == [0]
    assert await count(ledger) == 30


@pytest.mark.parametrize(
    "poison",
    [
        b"",
        b"\xc1",
        b"{}",
        packed(an_event("r9"))[:-3],
        packed(an_event("r9", input_tokens=2**60)),
        packed(an_event("r9", admitted_ms=-1)),
        packed(an_event("r9", request_bytes=2**64 - 1)),
        packed(an_event("r9", outcome="of a newer\0gateway")),
        packed(an_event("r9", tier="\0")).replace(b"\0\x16", b"\0\x15", 1)[:-3],
        packed(an_event("r9", model="no text")).replace(b"no text", b"\xff\xfe text"[:7]),
        b"\xdc\x00\x17" + packed(an_event("r9"))[3:] + b"\x91" * 100_000,
        bytes(range(200)),
    ],
    ids=[
        "empty",
        "reserved byte",
        "text",
        "cut",
        "absurd count",
        "absurd time",
        "beyond 64 bits",
        "unknown outcome",
        "a field short",
        "no UTF-8",
        "a field nested deep",
        "noise",
    ],
)
async def test_what_is_no_event_is_set_aside_and_holds_nothing_up(
    link: RedisLink, stream: RedisUsageStream, ledger: FailingLedger, poison: bytes
) -> None:
    """One broken entry must neither stop all billing behind it nor vanish: it is kept for repair."""
    await put(link, [*events(2), poison, *events(2, start=2)])

    assert await flusher(stream, ledger).drain(PATIENCE_S) == 0

    assert await count(ledger) == 4
    assert await ledger.set_aside_count() == 1


async def test_an_event_that_breaks_the_ledger_holds_nothing_up(
    link: RedisLink, stream: RedisUsageStream, ledger: FailingLedger
) -> None:
    """Whatever else an event does to its batch, the others are billed, and it is kept for repair."""
    ledger.cursed = frozenset({"r3"})
    told: list[int] = []
    await put(link, events(6))
    flushing = flusher(stream, ledger, told)

    assert await flushing.drain(PATIENCE_S) == 0

    assert await count(ledger) == sum(told) == 5
    assert await ledger.set_aside_count() == flushing.set_aside == 1
    assert flushing.failures == 0


async def test_fields_of_a_newer_gateway_are_no_poison(
    link: RedisLink, stream: RedisUsageStream, ledger: FailingLedger
) -> None:
    """Gateways of two versions share a stream during an upgrade: an event with more fields still counts."""
    payload = packed(an_event("r1"))
    assert payload[:3] == b"\xdc\x00\x18", "an array of 24"
    await put(link, [b"\xdc\x00\x19" + payload[3:] + b"\x2a"])

    assert await flusher(stream, ledger).drain(PATIENCE_S) == 0

    assert await ledger.event("r1") == an_event("r1")


async def test_one_of_many_flushers_leads_where_there_is_one_writer(
    link: RedisLink, stream: RedisUsageStream, ledger: FailingLedger
) -> None:
    """SQLite has one writer: of N workers one flushes, and the others leave the database alone. On PostgreSQL each
    flushes what it is handed, so that the ledger keeps up with any number of gateways.
    """  # noqa: D205
    first, second = (flusher(RedisUsageStream(link, "tw", PARTITIONS), ledger, owner=owner) for owner in ("one", "two"))
    await first.drain(1)
    await put(link, events(5))

    assert await second.drain(0) == (5 if ledger.single_writer else 0)
    assert ledger.batches == ([] if ledger.single_writer else [5])
    assert await first.drain(PATIENCE_S) == 0
    assert ledger.batches == [5]


async def test_a_stop_finishes_the_batch_under_way(
    link: RedisLink, stream: RedisUsageStream, ledger: FailingLedger
) -> None:
    """A graceful stop leaves nothing read but not written, which others would have to wait for."""
    await put(link, events(BATCH))
    stopping = flusher(stream, ledger, interval_s=0.001)
    running = asyncio.create_task(stopping.run())
    await until(lambda: _pending(link, BATCH))

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert await stream.backlog() == 0
    assert await count(ledger) == BATCH


@pytest.mark.parametrize("waits", ["in the ledger", "between its tries"])
async def test_a_batch_that_waits_is_kept(
    link: RedisLink, stream: RedisUsageStream, ledger: FailingLedger, waits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a ledger is slow or away, the batch in hand stays its owner's: others don't take it over, one after the
    other, and write it again and again into a ledger that is slow as it is.
    """  # noqa: D205
    monkeypatch.setattr("gateway.metering.flusher._KEEP_S", 0.02)
    ledger.down = waits == "between its tries"
    ledger.hanging = None if ledger.down else asyncio.Event()
    await put(link, events(10))
    running = asyncio.create_task(flusher(stream, ledger, interval_s=0.01).run())
    await until(lambda: _pending(link, 10))
    began_s = time.monotonic()

    async def kept() -> bool:
        """Each entry has given a sign of life since: it is idle for far less long than it has been in hand."""
        elapsed_s = time.monotonic() - began_s
        calls = [link.call("XPENDING", key, "flusher", "-", "+", 100) for key in await pending(link)]
        idle_ms = [int(entry[2]) for entries in await asyncio.gather(*calls) for entry in entries]
        return len(idle_ms) == 10 and elapsed_s > 0.4 and max(idle_ms) < elapsed_s * 500

    await until(kept)
    ledger.down = False
    if ledger.hanging is not None:
        ledger.hanging.set()
    await until(lambda: _is_empty(stream))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await count(ledger) == 10


async def test_a_drain_gives_up_in_time_and_says_what_is_left(
    link: RedisLink, stream: RedisUsageStream, ledger: FailingLedger
) -> None:
    """A stop with the database down ends in time; what is left stays on the stream, which survives the gateway."""
    ledger.down = True
    await put(link, events(7))

    assert await flusher(stream, ledger).drain(0.1) == 7
    assert await stream.backlog() == 7


async def _is_empty(stream: RedisUsageStream) -> bool:
    return await stream.backlog() == 0


async def _pending(link: RedisLink, number: int) -> bool:
    """Whether the flusher has been handed that many entries."""
    handed = 0
    for partition in range(PARTITIONS):
        key = f"tw:{{{partition}}}:events"
        groups = await link.call("XINFO", "GROUPS", key) if await link.call("EXISTS", key) else []
        handed += sum(dict(zip(group[::2], group[1::2], strict=True)).get(b"entries-read") or 0 for group in groups)
    return handed >= number


async def test_counts_rebuilt_while_a_batch_was_on_its_way_are_rebuilt_again(
    link: RedisLink, stream: RedisUsageStream, ledger: FailingLedger
) -> None:
    """A8, B9: Redis is emptied while the flusher waits for the ledger with a batch in hand. Accounts rebuilt in between
    lack that batch: their limits would let it pass a second time. A batch that was on the stream to its end harms none.
    """  # noqa: D205
    forgotten: list[str] = []
    await put(link, events(2))
    ledger.hanging = asyncio.Event()
    flushing = asyncio.create_task(flusher(stream, ledger, forgotten=forgotten).drain(PATIENCE_S))

    async def handed_out() -> bool:
        given = [(await link.call("XPENDING", key, "flusher"))[0] for key in await pending(link)]
        return given != [] and sum(given) == 2

    await until(handed_out)
    await link.call("FLUSHALL")
    ledger.hanging.set()
    await flushing
    assert forgotten == ["acme"]
    assert await count(ledger) == 2

    await put(link, events(2, start=2))
    await flusher(stream, ledger, forgotten=forgotten).drain(PATIENCE_S)
    assert forgotten == ["acme"]


async def pending(link: RedisLink) -> list[bytes]:
    """The streams that have a group by now."""
    keys = await asyncio.gather(*[link.call("KEYS", f"tw:{{{partition}}}:events") for partition in range(PARTITIONS)])
    return [key for found in keys for key in found if await link.call("XINFO", "GROUPS", key)]
