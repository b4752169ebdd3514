"""What the usage stream promises the flusher: each event at least once, to one consumer at a time, until it is done."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable

import pytest

from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.domain.stream import Entry
from gateway.quota.redis_links import Link
from gateway.quota.resp import RedisLink
from gateway.quota.usage_stream import RedisUsageStream
from tests.support.limiters import RedisSubject, asked, settled
from tests.support.until import until
from tests.support.valkey import ValkeyServer

PARTITIONS = 4


def stream_of(link: Link, *, idle_ms: int = 30_000) -> RedisUsageStream:
    """A consumer's view of the stream."""
    return RedisUsageStream(link, "tw", PARTITIONS, idle_ms=idle_ms)


async def put(link: Link, partition: int, *payloads: bytes) -> None:
    """Append events, as settle.lua does."""
    await asyncio.gather(*[link.call("XADD", f"tw:{{{partition}}}:events", "*", "e", each) for each in payloads])


def payloads(entries: list[Entry]) -> set[bytes]:
    """What the entries carry."""
    return {entry.payload for entry in entries}


async def test_events_written_before_the_first_reader_are_read(any_link: Link) -> None:
    """A gateway that settles before any flusher ran loses nothing (A8)."""
    await put(any_link, 0, b"a")
    await put(any_link, 3, b"b", b"\x00\xff")
    entries = await stream_of(any_link).read("one", 100)
    assert payloads(entries) == {b"a", b"b", b"\x00\xff"}
    assert {entry.partition for entry in entries} == {0, 3}


async def test_an_event_goes_to_one_consumer(any_link: Link) -> None:
    """Workers share the work: nobody writes the same events side by side."""
    await put(any_link, 1, *[b"%d" % number for number in range(50)])
    first, second = await asyncio.gather(stream_of(any_link).read("one", 30), stream_of(any_link).read("two", 30))
    assert len(first) + len(second) == 50
    assert payloads(first) | payloads(second) == {b"%d" % number for number in range(50)}


async def test_done_deletes_and_only_what_it_names(any_link: Link) -> None:
    """What is in the ledger leaves Redis; what isn't stays."""
    await put(any_link, 0, b"a", b"b")
    await put(any_link, 2, b"c")
    stream = stream_of(any_link)
    entries = await stream.read("one", 100)
    await stream.done([entry for entry in entries if entry.payload != b"b"])
    assert await stream.backlog() == 1
    assert await any_link.call("XPENDING", "tw:{0}:events", "flusher", "-", "+", 10) != []
    assert (await any_link.call("XPENDING", "tw:{2}:events", "flusher"))[0] == 0
    await stream.done([])


async def test_unfinished_events_are_handed_out_again(any_link: Link) -> None:
    """A flusher that was killed between reading and writing costs nothing (A8)."""
    for partition in range(PARTITIONS):
        await put(any_link, partition, *[b"%d-%d" % (partition, number) for number in range(7)])
    dead = await stream_of(any_link).read("dead", 100)
    assert len(dead) == 28
    assert await stream_of(any_link).read("alive", 100) == []
    alive = stream_of(any_link, idle_ms=1)
    await asyncio.sleep(0.02)  # the idle time itself is what is tested
    claimed = await alive.read("alive", 10) + await alive.read("alive", 100)
    assert payloads(claimed) == payloads(dead)


async def test_a_restarted_consumer_goes_on_where_it_died(any_link: Link) -> None:
    """A worker that was killed with entries in hand and comes back under its name has them at once, all of them, and
    nobody waits until it is taken for dead (A8).
    """  # noqa: D205
    for partition in range(PARTITIONS):
        await put(any_link, partition, *[b"%d-%d" % (partition, number) for number in range(20)])
    dead = await stream_of(any_link).read("one", 100)
    await put(any_link, 0, b"new")
    again = stream_of(any_link)
    entries = [entry for _ in range(9) for entry in await again.read("one", 12)]
    assert len(entries) == len(dead) + 1
    assert payloads(entries) == payloads(dead) | {b"new"}


async def test_entries_are_kept_by_signs_of_life_and_lost_without(any_link: Link) -> None:
    """A flusher that waits long for its database isn't robbed of its batch, which would be written twice for nothing;
    one that stopped to give signs is, within its idle time.
    """  # noqa: D205
    await put(any_link, 0, b"a", b"b")
    await put(any_link, 3, b"c")
    slow, other = stream_of(any_link), stream_of(any_link, idle_ms=100)
    entries = await slow.read("slow", 100)

    async def idle_ms() -> list[int]:
        calls = [any_link.call("XPENDING", f"tw:{{{number}}}:events", "flusher", "-", "+", 10) for number in (0, 3)]
        return [int(entry[2]) for found in await asyncio.gather(*calls) for entry in found]

    async def has_waited() -> bool:
        return min(await idle_ms()) >= 300

    await until(has_waited)
    kept_s = time.monotonic()
    await slow.keep("slow", entries)
    idle = await idle_ms()
    assert len(idle) == 3
    assert max(idle) <= (time.monotonic() - kept_s) * 1000 + 5
    taken: set[bytes] = set()

    async def claimed() -> bool:
        taken.update(payloads(await other.read("other", 100)))
        return taken == payloads(entries)

    await until(claimed)
    await slow.done(entries)
    await slow.keep("slow", entries)
    assert (await any_link.call("XPENDING", "tw:{0}:events", "flusher"))[0] == 0


async def test_a_slow_consumer_keeps_what_it_reads(any_link: Link) -> None:
    """A flusher waiting for its database isn't taken for dead before its time."""
    await put(any_link, 0, b"a")
    await stream_of(any_link).read("slow", 100)
    assert await stream_of(any_link).read("other", 100) == []


async def test_a_claim_skips_what_was_deleted(any_link: Link) -> None:
    """A crash between delete and acknowledge leaves nothing that is handed out, or fails, for ever."""
    await put(any_link, 0, b"a", b"b")
    first, _ = await stream_of(any_link).read("dead", 100)
    await any_link.call("XDEL", "tw:{0}:events", first.id)
    await asyncio.sleep(0.02)  # the idle time itself is what is tested
    assert payloads(await stream_of(any_link, idle_ms=1).read("alive", 100)) == {b"b"}


async def test_entries_whose_answer_was_lost_are_read_at_once(valkey: ValkeyServer) -> None:
    """A connection that broke while entries were handed out, or a delete that nobody confirmed, holds them up for no
    half minute: they are in the ledger two seconds late at most, not thirty (A8).
    """  # noqa: D205
    link = RedisLink(valkey.url, timeout_s=10)
    await link.open()
    stream = stream_of(link)
    assert await stream.read("one", 100) == []
    await put(link, 0, *[b"%d" % number for number in range(5)])
    await _lost(valkey, link, stream.read("one", 12))
    entries = await stream.read("one", 12)
    assert sorted(entry.payload for entry in entries) == [b"0", b"1", b"2", b"3", b"4"]
    await _lost(valkey, link, stream.done(entries))
    await put(link, 0, b"5")
    assert payloads(await stream.read("one", 12)) == {b"5"}
    assert await stream.backlog() == 1
    await link.close()


@pytest.mark.parametrize("at_most", [1, 3, 100, 1000])
async def test_a_busy_partition_fills_the_batch(any_link: Link, at_most: int) -> None:
    """One account's burst is flushed in full batches, never more than asked, and quiet partitions don't wait."""
    await put(any_link, 2, *[b"%d" % number for number in range(200)])
    await put(any_link, 3, b"quiet")
    stream = stream_of(any_link)
    first = await stream.read("one", at_most)
    assert len(first) == min(at_most, 201)
    rest = first
    while found := await stream.read("one", at_most):
        rest = rest + found
    assert len(rest) == len({(entry.partition, entry.id) for entry in rest}) == 201


async def test_a_flushed_server_is_no_trouble(any_link: Link) -> None:
    """Streams and groups lost with a flush are made anew at the next read."""
    stream = stream_of(any_link)
    await put(any_link, 0, b"a")
    await stream.read("one", 100)
    await any_link.call("FLUSHALL")
    assert await stream.read("one", 100) == []
    await put(any_link, 0, b"b")
    assert payloads(await stream.read("one", 100)) == {b"b"}
    assert await stream.backlog() == 1


async def test_settled_events_arrive(redis_subject: RedisSubject) -> None:
    """What settle.lua writes is what the flusher reads: one key name, one field, the bytes untouched (A8)."""
    event = bytes(range(256))
    await redis_subject.limiter.settle(settled(asked("r1"), event=event))
    assert await redis_subject.stream.backlog() == 1
    assert await redis_subject.take_events() == [event]
    assert await redis_subject.stream.backlog() == 0


async def test_one_holds_the_lease(any_link: Link) -> None:
    """SQLite has one writer at a time: a second flusher waits until the first's lease ends, then leads."""
    stream = stream_of(any_link)
    assert await stream.lead("one", 60_000)
    assert not await stream.lead("two", 60_000)
    assert await stream.lead("one", 50)
    assert await any_link.call("PTTL", "tw:flusher") <= 50
    await until(lambda: stream.lead("two", 60_000))
    assert not await stream.lead("one", 60_000)


async def test_a_lost_link_is_a_fault(any_link: Link) -> None:
    """The flusher sees one kind of trouble, and tries again."""
    await any_link.close()
    with pytest.raises(Fault) as caught:
        await stream_of(any_link).read("one", 10)
    assert caught.value.kind is LIMITER_UNAVAILABLE


async def _lost(valkey: ValkeyServer, link: RedisLink, call: Awaitable[object]) -> None:
    """Make a call that the server takes, and whose answer nobody hears."""
    wire = link._wire
    assert wire is not None
    wire._timeout_s = 0.1  # of this connection alone: the next one is as patient as the link
    if wire._sweeper is not None:
        wire._sweeper.cancel()
        wire._sweeper = None
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Fault):
            await call
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    await until(lambda: _connected(link))


async def _connected(link: RedisLink) -> bool:
    return link.connected
