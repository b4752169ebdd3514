"""Moves settled events from the usage stream into the ledger.

Promises: an event leaves the stream only after the ledger's commit is on disk, so that a kill anywhere loses nothing;
the ledger takes each request id once, so that reading an event twice counts it once. What can't be read as an event is
set aside in the ledger, whole, and never holds up the rest. While the ledger or the stream fails, the batch in hand is
kept and tried again with growing pauses; the stream hears meanwhile that its owner lives, so that nobody else takes it
over. Where the ledger has a single writer (SQLite) one flusher at a time works, by
a lease on the stream: a second one is safe but in the way. Else every worker flushes what it is handed.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from gateway.domain.faults import Fault
from gateway.domain.stream import Entry
from gateway.domain.usage import UsageEvent
from gateway.ledger.ledger import Ledger
from gateway.ledger.usage import unfit
from gateway.telemetry.log import log

BATCH = 1_000
LEASE_MS = 3_000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_DRAIN_POLL_S = 0.02
_KEEP_S = 1.0
"""How often a batch that takes long is kept from being taken over."""

_decode = msgspec.msgpack.Decoder(UsageEvent).decode
_encode = msgspec.msgpack.Encoder().encode


class UsageStream(Protocol):
    """Where settle puts events: at least once to one consumer at a time. Raises Fault(LIMITER_UNAVAILABLE)."""

    async def read(self, owner: str, at_most: int) -> list[Entry]:
        """New entries for this consumer, and those that a dead one left unfinished."""
        ...

    async def keep(self, owner: str, entries: Sequence[Entry]) -> None:
        """Tell that the owner of these entries lives and works at them. Never raises for want of a server."""
        ...

    async def done(self, entries: Sequence[Entry]) -> bool:
        """Delete entries that are in the ledger; whether all were on the stream still."""
        ...

    async def lead(self, owner: str, lease_ms: int) -> bool:
        """Take or renew the one lease to flush; whether `owner` has it now."""
        ...

    async def backlog(self) -> int:
        """Events that are not in the ledger yet."""
        ...


class Flusher:
    """One process's flusher. `owner` names it among all.

    `on_flushed` is told how many events each batch added, and how many seconds the ledger took to write it. `forget`
    drops an account's live counts, which are then rebuilt from the ledger (`Limiter.forget`).
    """

    def __init__(
        self,
        stream: UsageStream,
        ledger: Ledger,
        *,
        owner: str,
        interval_s: float,
        on_flushed: Callable[[int, float], None],
        forget: Callable[[str], Awaitable[None]],
    ) -> None:
        self.failures = 0
        """How often a batch failed so far; each is tried again."""
        self.set_aside = 0
        """Entries that were set aside so far."""
        self._stream = stream
        self._ledger = ledger
        self._owner = owner
        self._interval_s = interval_s
        self._on_flushed = on_flushed
        self._forget = forget
        self._held: list[Entry] = []

    async def run(self) -> None:
        """Flush until cancelled; a batch under way is finished first. Full batches follow each other at once."""
        pause_s = _FIRST_PAUSE_S
        while True:
            batch = asyncio.create_task(self._flush())
            try:
                full = await self._kept(batch) >= BATCH
                pause_s = _FIRST_PAUSE_S
            except asyncio.CancelledError:
                await asyncio.wait({batch})
                raise
            except Exception as error:  # noqa: BLE001  # a background task: it must outlive whatever goes wrong
                self.failures += 1
                log.warning("flush_failed", detail=_detail(error), retry_s=pause_s, held=len(self._held))
                await self._pause(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                continue
            if not full:
                await asyncio.sleep(self._interval_s)

    async def _kept(self, batch: asyncio.Task[int]) -> int:
        """What the batch comes to; it goes on where this is cancelled."""
        while not (await asyncio.wait({batch}, timeout=_KEEP_S))[0]:
            await self._stream.keep(self._owner, self._held)
        return batch.result()

    async def _pause(self, pause_s: float) -> None:
        ends_s = time.monotonic() + pause_s
        while (left_s := ends_s - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, _KEEP_S))
            await self._stream.keep(self._owner, self._held)

    async def drain(self, patience_s: float) -> int:
        """For a graceful stop, after `run`: flush until nothing is left, at most `patience_s`; how much was left.

        What is left stays on the stream for the next start. Raises the Fault of a stream that can't be asked.
        """
        ends_s = time.monotonic() + patience_s
        while True:
            moved = 0
            try:
                moved = await self._flush()
            except Fault as fault:
                self.failures += 1
                log.warning("flush_failed", detail=_detail(fault), held=len(self._held))
            left = await self._stream.backlog()
            if not left or time.monotonic() >= ends_s:
                return left
            if not moved:
                await asyncio.sleep(_DRAIN_POLL_S)

    async def _flush(self) -> int:
        """One batch from the stream to the ledger; how many entries it had."""
        if not self._held:
            if self._ledger.single_writer and not await self._stream.lead(self._owner, LEASE_MS):
                return 0
            self._held = await self._stream.read(self._owner, BATCH)
        if not self._held:
            return 0
        events, unreadable = _sorted(self._held)
        began_s = time.monotonic()
        try:
            new = await self._ledger.take_events(events)
        except Fault:
            raise
        except Exception as error:  # noqa: BLE001  # of the background task: one bad event must not stop the rest
            log.error("flush_by_one", detail=repr(error))
            new, refused = await self._take_by_one(events)
            unreadable += refused
        if unreadable:
            await self._ledger.set_aside(unreadable, time.time_ns() // 1_000_000)
            log.error("usage_set_aside", entries=len(unreadable), reason=unreadable[0][1])
        took_s = time.monotonic() - began_s
        if not await self._stream.done(self._held):
            await self._forget_all({event.account_id for event in events})
        count, self._held = len(self._held), []
        self.set_aside += len(unreadable)
        self._on_flushed(new, took_s)
        return count

    async def _forget_all(self, account_ids: Iterable[str]) -> None:
        """The stream was emptied while its entries were on their way: counts that were rebuilt meanwhile lack them."""
        log.warning("usage_stream_lost")
        for account_id in account_ids:
            await self._forget(account_id)

    async def _take_by_one(self, events: Sequence[UsageEvent]) -> tuple[int, list[tuple[bytes, str]]]:
        """How many events were new, and those that the ledger can't take, as (payload, reason)."""
        new = 0
        refused: list[tuple[bytes, str]] = []
        for event in events:
            try:
                new += await self._ledger.take_events([event])
            except Fault:
                raise
            except Exception as error:  # noqa: BLE001  # as above
                refused.append((_encode(event), repr(error)))
        return new, refused


def _sorted(entries: Sequence[Entry]) -> tuple[list[UsageEvent], list[tuple[bytes, str]]]:
    """The events among the entries, and the rest as (payload, reason)."""
    events: list[UsageEvent] = []
    unreadable: list[tuple[bytes, str]] = []
    for entry in entries:
        event = event_of(entry.payload)
        if isinstance(event, str):
            unreadable.append((entry.payload, event))
        else:
            events.append(event)
    return events, unreadable


def event_of(payload: bytes) -> UsageEvent | str:
    """The event that an entry's bytes are, or why they are none that the ledger can hold."""
    try:
        event = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return str(error)
    return unfit(event) or event


def _detail(error: Exception) -> str:
    return error.internal if isinstance(error, Fault) else repr(error)
