"""The journal's way back: once the limiter answers, entries are settled on it, oldest first, at a bounded rate.

Promises: a segment is deleted only after the limiter confirmed each of its entries; a kill at any moment means that it
is replayed again, and counts once. What a dead process left is taken over by one living process at a time, by the lock
on its directory; requests of it that were never settled count as a reaped one does. An entry that can't be settled is
set aside in a file of its own, and holds up none. Outlives whatever goes wrong.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from gateway.domain.faults import Fault
from gateway.domain.usage import UsageEvent
from gateway.quota.hold import charges
from gateway.quota.journal import LOCK, Journal, locked
from gateway.quota.journal_segment import JournalEntry, Kind, entries, framed
from gateway.quota.outage import Outage
from gateway.quota.redis_replay import Numbered, Poison
from gateway.telemetry.log import log

AT_ONCE = 64
PAUSE_S = 0.5
INHERIT_EVERY = 10
DAMAGED = "damaged"
"""Below the root: copies of segments that hold more than could be read, and entries that could not be settled."""

_event = msgspec.msgpack.Decoder(UsageEvent).decode

Settle = Callable[[Sequence[Numbered]], Awaitable[list[Poison]]]

Entries = Sequence[JournalEntry | None]
"""A segment's, by number."""


class JournalReplay:
    """Of all journals below `root`. `silent` tells to wait.

    `replayed` counts the entries settled so far, `set_aside` those that could not be.
    """

    def __init__(self, outage: Outage, root: Path, settle: Settle, silent: Callable[[], bool], *, per_s: int) -> None:
        self.replayed = self.set_aside = 0
        self._outage = outage
        self._root = root
        self._settle = settle
        self._silent = silent
        self._per_s = per_s
        self._turns = 0
        self._told = False

    async def run(self) -> NoReturn:
        """Until cancelled."""
        while True:
            try:
                await self.turn()
                self._told = False
            except Exception as error:  # noqa: BLE001  # a background task: it must outlive whatever goes wrong
                if not self._told:
                    detail = error.internal if isinstance(error, Fault) else repr(error)
                    log.warning("replay_failed", detail=detail)
                self._told = True
            await asyncio.sleep(PAUSE_S)

    async def turn(self) -> None:
        """Replay what there is, unless the limiter is silent. Raises Fault(LIMITER_UNAVAILABLE), OSError."""
        self._outage.write_again()
        if self._silent():
            return
        await self._replay_own(self._outage.journal)
        if self._turns % INHERIT_EVERY == 0:
            for directory in await asyncio.to_thread(_journals, self._root):
                await self._inherit(directory)
        self._turns += 1

    async def _replay_own(self, journal: Journal) -> None:
        if not journal.segments:
            return
        journal.seal()
        for segment in [segment for segment in journal.segments if not segment.replayed]:
            again, segment.tried = segment.tried, True
            found = await asyncio.to_thread(self._read, segment.path)
            await self._replay(segment.name, found, again)
            segment.replayed = True
            journal.forget()
        journal.forget()

    async def _inherit(self, directory: Path) -> None:
        """Replay a dead process's journal and delete it; nothing where its process lives, or another one is at it."""
        try:
            lock_fd = locked(directory)
        except FileNotFoundError:
            return
        if lock_fd is None:
            return
        try:
            await self._replay_dead(directory)
        finally:
            os.close(lock_fd)

    async def _replay_dead(self, directory: Path) -> None:
        paths = await asyncio.to_thread(_segments, directory)
        unsettled: dict[str, Numbered] = {}
        for path in paths:
            name = f"{directory.name}.{path.stem}"
            found = await asyncio.to_thread(self._read, path)
            for number, entry in enumerate(found):
                if entry is None:
                    continue
                if entry.kind is Kind.ADMITTED:
                    unsettled[entry.request_id] = Numbered(_reaped(entry), name, number, again=True)
                else:
                    unsettled.pop(entry.request_id, None)
            await self._replay(name, found, again=True)
        left = list(unsettled.values())
        for first in range(0, len(left), AT_ONCE):
            await self._send(left[first : first + AT_ONCE])
        if paths:
            log.warning("journal_inherited", directory=str(directory), unsettled=len(left))
        await asyncio.to_thread(_delete, directory, paths)

    async def _replay(self, name: str, found: Entries, again: bool) -> None:
        settled = [
            Numbered(entry, name, number, again)
            for number, entry in enumerate(found)
            if entry is not None and entry.kind is not Kind.ADMITTED
        ]
        for first in range(0, len(settled), AT_ONCE):
            await self._send(settled[first : first + AT_ONCE])

    async def _send(self, numbered: list[Numbered]) -> None:
        poison = await self._settle(numbered)
        for each in poison:
            await asyncio.to_thread(self._set_aside, each)
        self.replayed += len(numbered) - len(poison)
        await asyncio.sleep(len(numbered) / self._per_s)

    def _read(self, path: Path) -> Entries:
        """A segment's entries, up to the first byte that is wrong; a copy of it is kept where not all could be read."""
        data = path.read_bytes()
        whole = list(entries(data))
        found = [entry for _, entry in whole]
        cut_bytes = len(data) - (whole[-1][0] if whole else 0)
        if cut_bytes or None in found:
            kept = self._kept(f"{path.parent.name}.{path.name}")
            log.error("journal_cut", file=str(path), bytes=cut_bytes, unreadable=found.count(None), kept=str(kept))
            with suppress(FileExistsError):
                kept.hardlink_to(path)
        return found

    def _set_aside(self, poison: Poison) -> None:
        """Keep an entry as a segment of its own, on disk. Raises OSError."""
        one = poison.one
        kept = self._kept(f"{one.segment}.{one.number}.segment")
        with kept.open("wb") as file:
            file.write(framed(one.entry))
            file.flush()
            os.fsync(file.fileno())
        self.set_aside += 1
        log.error("journal_set_aside", request_id=one.entry.request_id, detail=poison.reason, kept=str(kept))

    def _kept(self, name: str) -> Path:
        directory = self._root / DAMAGED
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory / name


def _journals(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*") if path.name[0] != "." and path.name != DAMAGED)


def _segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.segment"))


def _delete(directory: Path, paths: list[Path]) -> None:
    """Oldest first: a settlement must not go before the admission it ends."""
    for path in [*paths, directory / LOCK]:
        path.unlink(missing_ok=True)
    with suppress(OSError):
        directory.rmdir()


def _reaped(entry: JournalEntry) -> JournalEntry:
    """The settlement of a request whose gateway died before it told more."""
    about = _event(entry.event) if entry.event else None
    amounts = tuple(charges(entry.amounts, about))
    return msgspec.structs.replace(entry, kind=Kind.SETTLED, amounts=amounts)
