"""The journal: what this process admits and settles while the limiter is silent, on disk, in a directory of its own.

Promises: what `append` took is in the kernel when it returns, so that a killed process loses nothing, and is synced
within `sync_s`, off the loop. Bounded: beyond `max_bytes` there is no room for new admissions, while settlements are
still written. A disk that fails or is full is told once, and tried again after a second; nothing raises. The directory
is locked while its process lives; `journal_heirs` takes over what a dead one left.
"""

import asyncio
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from gateway.quota.journal_segment import JournalEntry, Kind, framed
from gateway.telemetry.log import log

SEGMENT_BYTES = 4 * 1024 * 1024
RETRY_S = 1.0
LOCK = "lock"


class Segment(msgspec.Struct):
    """One file. `running` counts requests admitted in it and not settled yet; `tried` that a replay began."""

    path: Path
    size: int = 0
    running: int = 0
    tried: bool = False
    replayed: bool = False

    @property
    def name(self) -> str:
        """Names it among all segments of all gateways."""
        return f"{self.path.parent.name}.{self.path.stem}"


class Journal:
    """One process's journal below `root`; nothing is made before the first entry."""

    def __init__(self, root: Path, *, max_bytes: int, sync_s: float = 0.1) -> None:
        self.failing = False
        self.segments: list[Segment] = []
        self._root = root
        self._max_bytes = max_bytes
        self._sync_s = sync_s
        self._retry_s = 0.0
        self._fd = -1
        self._lock_fd = -1
        self._made = 0
        self._admitted: dict[str, Segment] = {}
        self._dirty = False
        self._thread: ThreadPoolExecutor | None = None

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self.segments)

    @property
    def has_room(self) -> bool:
        """Whether another admission may be written."""
        return self.size < self._max_bytes and (not self.failing or time.monotonic() >= self._retry_s)

    def append(self, entry: JournalEntry) -> bool:
        """Write an entry; False where the disk does not take it."""
        frame = framed(entry)
        try:
            segment = self._open()
            _write_whole(self._fd, frame)
        except OSError as error:
            self._fail(error)
            return False
        segment.size += len(frame)
        self._count(entry, segment)
        if self.failing:
            self.failing = False
            log.warning("journal_writes_again", directory=str(self._root))
        if not self._dirty:
            self._dirty = True
            asyncio.get_running_loop().call_later(self._sync_s, self._sync)
        if segment.size >= SEGMENT_BYTES:
            self.seal()
        return True

    def seal(self) -> None:
        """End the segment that is being written; the next entry begins another."""
        if self._fd >= 0:
            self._run(_sync_and_close, self._fd)
            self._fd = -1

    def forget(self) -> None:
        """Delete what nobody needs any more, oldest first: a settlement must not go before the admission it ends."""
        while self.segments:
            first = self.segments[0]
            being_written = self._fd >= 0 and len(self.segments) == 1
            if being_written or first.running or not first.replayed:
                return
            try:
                first.path.unlink(missing_ok=True)
            except OSError as error:
                self._fail(error)
                return
            del self.segments[0]

    async def close(self) -> None:
        """Sync, and let go of the directory: whoever comes next replays what is left."""
        self.seal()
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, int)
            self._thread.shutdown(wait=False)
            self._thread = None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _count(self, entry: JournalEntry, segment: Segment) -> None:
        if entry.kind is Kind.ADMITTED:
            segment.running += 1
            self._admitted[entry.request_id] = segment
        elif (first := self._admitted.pop(entry.request_id, None)) is not None:
            first.running -= 1

    def _open(self) -> Segment:
        """The segment that takes the next entry. Raises OSError."""
        if self._fd < 0:
            if self._lock_fd < 0:
                self._directory, self._lock_fd = _make_directory(self._root)
            self._made += 1
            path = self._directory / f"{self._made:08d}.segment"
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self.segments.append(Segment(path))
        return self.segments[-1]

    def _fail(self, error: OSError) -> None:
        if self._fd >= 0:
            try:
                os.ftruncate(self._fd, self.segments[-1].size)
            except OSError:
                # Half an entry may stand at its end: whoever reads cuts that, and what follows goes elsewhere.
                self.seal()
        self._tell(error)
        self._retry_s = time.monotonic() + RETRY_S

    def _tell(self, error: OSError) -> None:
        if not self.failing:
            log.error("journal_failed", directory=str(self._root), detail=str(error))
        self.failing = True

    def _sync(self) -> None:
        self._dirty = False
        if self._fd >= 0:
            self._run(os.fsync, self._fd)

    def _run(self, work: Callable[[int], None], fd: int) -> None:
        """On the one thread, in order: a file is not closed before it is synced."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "journal")
        asyncio.get_running_loop().run_in_executor(self._thread, work, fd).add_done_callback(self._ran)

    def _ran(self, work: "asyncio.Future[None]") -> None:
        error = None if work.cancelled() else work.exception()
        if isinstance(error, OSError):
            self._tell(error)


def locked(directory: Path) -> int | None:
    """Lock a journal's directory; the descriptor that holds the lock, None where another process has it.

    Raises OSError.
    """
    fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _make_directory(root: Path) -> tuple[Path, int]:
    """A new directory, locked before anyone can find it."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = secrets.token_hex(8)
    draft = root / f".{name}"
    draft.mkdir(mode=0o700)
    fd = locked(draft)
    if fd is None:
        raise OSError(errno.EBUSY, "the journal's new directory is locked", str(draft))
    return draft.rename(root / name), fd


def _write_whole(fd: int, frame: bytes) -> None:
    if os.write(fd, frame) != len(frame):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sync_and_close(fd: int) -> None:
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
