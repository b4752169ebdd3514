"""The journal on a real disk: bounded, honest about a disk that fails, and inherited once."""

import asyncio
import os
import resource
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import msgspec
import pytest

from gateway.domain.decisions import Admitted, Settlement
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota import journal as journal_module
from gateway.quota.journal import Journal
from gateway.quota.journal_replay import DAMAGED, JournalReplay
from gateway.quota.journal_segment import JournalEntry, Kind
from gateway.quota.local_limiter import LocalLimiter
from gateway.quota.outage import Outage
from gateway.quota.redis_replay import Numbered, Poison
from tests.support.limiters import ACCOUNT, asked, told

NOW_MS = 1_700_000_000_000


class Bench:
    """One process's outage over `root`; `settled` is what was replayed."""

    def __init__(self, root: Path, *, max_bytes: int = 1 << 20) -> None:
        self.journal = Journal(root, max_bytes=max_bytes)
        self.outage = Outage(LocalLimiter(share=1, workers=1, worker=0), self.journal)
        self.settled: list[Numbered] = []
        self.poison: set[str] = set()
        self.replay = JournalReplay(self.outage, root, self._settle, lambda: False, per_s=1_000_000)

    async def _settle(self, numbered: Sequence[Numbered]) -> list[Poison]:
        self.settled += [one for one in numbered if one.entry.request_id not in self.poison]
        return [Poison(one, "no") for one in numbered if one.entry.request_id in self.poison]

    @property
    def ids(self) -> list[str]:
        """Whose settlements were replayed, in order."""
        return [one.entry.request_id for one in self.settled]

    async def admit(self, request_id: str) -> None:
        """Admit a request of a tier without limits."""
        request = asked(request_id, about=told(request_id, NOW_MS, 10))
        assert isinstance(await self.outage.admit(request, NOW_MS), Admitted)

    def settle(self, request_id: str) -> None:
        """End it."""
        assert self.outage.settle(Settlement(request_id, ACCOUNT, (), b"event", admitted_ms=NOW_MS))

    def die(self) -> None:
        """Let go of the lock, as the end of a process does."""
        os.close(self.journal._lock_fd)


def failing(here: Bench) -> bool:
    """Whether the disk did not take the last write."""
    return here.journal.failing


def below(directory: Path, pattern: str) -> list[Path]:
    """What is there."""
    return list(directory.glob(pattern))


@contextmanager
def full_disk(file_bytes: int) -> Iterator[None]:
    """No file grows beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_what_was_journaled_is_replayed_in_order_and_deleted(tmp_path: Path) -> None:
    """D6: usage goes to Redis oldest first, and the disk is free again once all of it is there."""
    here = Bench(tmp_path)
    for name in ("r1", "r2", "r3"):
        await here.admit(name)
    here.settle("r2")
    await here.replay.turn()
    assert here.ids == ["r2"]
    assert here.journal.size > 0
    here.settle("r1")
    here.settle("r3")
    await here.replay.turn()
    assert here.ids == ["r2", "r1", "r3"]
    await here.replay.turn()
    assert here.ids == ["r2", "r1", "r3"]
    assert (here.journal.size, below(tmp_path, "*/*.segment")) == (0, [])
    await here.journal.close()


async def test_a_dead_process_s_journal_is_inherited_once(tmp_path: Path) -> None:
    """D6, B1: after a kill -9, or with fewer workers than before, one living process settles what was journaled; what
    was running is settled at what its admission told, never at nothing. A living one's journal is left alone.
    """  # noqa: D205
    dead, living, heir = Bench(tmp_path), Bench(tmp_path), Bench(tmp_path)
    for name in ("r1", "r2"):
        await dead.admit(name)
    dead.settle("r1")
    await living.admit("r3")
    dead.die()
    await asyncio.gather(heir.replay.turn(), living.replay.turn())
    both = heir.settled + living.settled
    assert sorted(one.entry.request_id for one in both) == ["r1", "r2"]
    assert all(one.again for one in both)
    cut = next(one.entry for one in both if one.entry.request_id == "r2")
    assert cut.kind is Kind.SETTLED
    assert cut.event
    assert len(below(tmp_path, "*")) == 1
    await living.journal.close()


async def test_a_torn_tail_is_cut_and_kept_aside(tmp_path: Path) -> None:
    """A loss of power in the middle of a write: what is before it is replayed, and the rest is kept."""
    dead, heir = Bench(tmp_path), Bench(tmp_path)
    await dead.admit("r1")
    dead.settle("r1")
    with dead.journal.segments[0].path.open("ab") as file:
        file.write(b"\x40\x00\x00\x00torn")
    dead.die()
    await heir.replay.turn()
    assert heir.ids == ["r1"]
    assert [path.read_bytes()[-4:] for path in (tmp_path / DAMAGED).iterdir()] == [b"torn"]


async def test_an_entry_that_cannot_be_settled_is_set_aside_and_can_be_replayed_later(tmp_path: Path) -> None:
    """D6: one entry that Redis refuses holds up no other, and is not lost: it stands in a file that is replayed from
    any directory of the journal, once what was wrong is mended.
    """  # noqa: D205
    here, heir = Bench(tmp_path), Bench(tmp_path)
    for name in ("r1", "r2", "r3"):
        await here.admit(name)
        here.settle(name)
    here.poison = {"r2"}
    await here.replay.turn()
    assert here.ids == ["r1", "r3"]
    assert (here.replay.replayed, here.replay.set_aside) == (2, 1)
    assert (here.journal.size, below(tmp_path, "*/*.segment")) == (0, below(tmp_path, f"{DAMAGED}/*"))
    await here.journal.close()

    (tmp_path / "mended").mkdir()
    for kept in below(tmp_path, f"{DAMAGED}/*"):
        kept.rename(tmp_path / "mended" / kept.name)
    await heir.replay.turn()
    assert heir.ids == ["r2"]
    assert below(tmp_path, "*/*.segment") == []


async def test_an_entry_of_another_version_holds_up_none(tmp_path: Path) -> None:
    """D6: a downgrade, or a defect: what this version can't read is kept, and what it can is settled."""
    dead, heir = Bench(tmp_path), Bench(tmp_path)
    for name in ("r1", "r2"):
        await dead.admit(name)
    segment = dead.journal.segments[0].path
    packed = b"\x93\x01\x02\x03"
    with segment.open("ab") as file:
        file.write(struct.pack("<II", len(packed), crc32(packed)) + packed)
    dead.settle("r1")
    dead.settle("r2")
    whole = segment.read_bytes()
    dead.die()
    await heir.replay.turn()
    assert heir.ids == ["r1", "r2"]
    assert [path.read_bytes() for path in below(tmp_path, f"{DAMAGED}/*")] == [whole]


async def test_a_full_journal_admits_nothing_and_still_takes_settlements(tmp_path: Path) -> None:
    """Bounded, and usage is never what gives way: new requests are denied, those that run are settled."""
    here = Bench(tmp_path, max_bytes=200)
    await here.admit("r1")
    await here.admit("r2")
    with pytest.raises(Fault) as caught:
        await here.admit("r3")
    assert caught.value.kind is LIMITER_UNAVAILABLE
    here.settle("r1")
    await here.replay.turn()
    assert here.ids == ["r1"]
    await here.journal.close()


async def test_a_full_disk_denies_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D6: without a disk to write to, nobody is let in uncounted; what was running is settled once there is room, and
    half an entry never stands before a whole one.
    """  # noqa: D205
    monkeypatch.setattr(journal_module, "RETRY_S", 0.0)
    here = Bench(tmp_path)
    # Large, so that the test's own captured output stays below the bound.
    assert here.journal.append(JournalEntry(Kind.SETTLED, "r0", ACCOUNT, NOW_MS, (), bytes(900_000)))
    await here.admit("r1")
    with full_disk(here.journal.size + 20):
        with pytest.raises(Fault, match="journal"):
            await here.admit("r2")
        here.settle("r1")
        await here.replay.turn()
        assert here.ids == ["r0"]
        assert failing(here)
        with pytest.raises(Fault, match="journal"):
            await here.admit("r3")
    await here.replay.turn()
    assert here.ids == ["r0", "r1"]
    assert not failing(here)
    assert not (tmp_path / DAMAGED).exists()
    await here.admit("r4")
    await here.journal.close()


async def test_a_directory_that_cannot_be_made_denies(tmp_path: Path) -> None:
    """A data directory of another owner, or a file in its place: said loudly, and nothing crashes."""
    (tmp_path / "journal").write_text("a file")
    here = Bench(tmp_path / "journal")
    with pytest.raises(Fault) as caught:
        await here.admit("r1")
    assert caught.value.kind is LIMITER_UNAVAILABLE
    assert here.journal.failing
    await here.replay.turn()
    await here.journal.close()


def test_the_entry_kinds_never_change() -> None:
    """A journal outlives an upgrade: its numbers mean the same to the next version."""
    assert [(kind.name, kind.value) for kind in Kind] == [("ADMITTED", 0), ("SETTLED", 1), ("REPEATED", 2)]
    fields = "kind", "request_id", "account_id", "admitted_ms", "amounts", "event", "era"
    assert JournalEntry.__struct_fields__ == fields
    assert msgspec.convert([1, "r1", "acme", 1, [], b"event"], JournalEntry).era == ""
