"""Log lines to standard output, a few at a time, without waiting for a slow reader.

Lines are held for at most 100 ms or 64 KiB, then written with `os.write` in groups of whole lines no larger than
PIPE_BUF: such writes are atomic on a pipe, so that workers which share one never mix their lines. Before each group
the pipe is asked whether it has room (`poll`). A full pipe leaves the lines here, up to 4 MiB; beyond that new lines
are dropped and counted. At exit, and outside an event loop (command line, threads), writes wait for the reader.
Who gathers lines of its own has them asked for (`expect`) as soon as the lines held here are due.
"""

import asyncio
import os
import select
import threading
from collections.abc import Callable

_HOLD_S = 0.1
_HELD_BYTES = 64 * 1024
_MAX_BYTES = 4 * 1024 * 1024
_GROUP_BYTES = select.PIPE_BUF


class LineWriter:
    """Writes lines to a file descriptor. Safe to use from any thread; each line ends in a newline."""

    def __init__(self, fd: int = 1) -> None:
        self.dropped = 0
        self._fd = fd
        self._lines: list[bytes] = []
        self._bytes = 0
        self._expected: set[Callable[[], None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flushing = threading.Lock()
        self._room = select.poll()
        self._room.register(fd, select.POLLOUT)

    def write(self, line: bytes) -> None:
        """Hold a line, to be written within 100 ms."""
        if self._bytes > _MAX_BYTES:
            self.dropped += 1
            return
        self._lines.append(line)
        self._bytes += len(line)
        if self._loop is None or self._loop.is_closed():
            self._arm()
        elif self._bytes >= _HELD_BYTES:
            self.flush()

    def expect(self, tell: Callable[[], None]) -> None:
        """Have `tell` called once, within 100 ms, or as soon as somebody waits for what is held: it writes lines.

        From the event loop's thread alone.
        """
        self._expected.add(tell)
        if self._loop is None or self._loop.is_closed():
            self._arm()

    def flush(self, *, wait: bool = False) -> None:
        """Write what is held; with `wait` all of it and what is expected, else only what the reader has room for."""
        if wait:
            self._ask()
        if not self._flushing.acquire(timeout=1.0 if wait else 0.0):
            return
        try:
            taken = self._lines[:]
            del self._lines[: len(taken)]
            rest = self._send(b"".join(taken), wait=wait)
            if rest:
                self._lines.insert(0, rest)
            self._bytes = sum(map(len, self._lines))
        finally:
            self._flushing.release()

    def _arm(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush(wait=True)
        else:
            self._loop.call_later(_HOLD_S, self._on_time)

    def _ask(self) -> None:
        while self._expected:
            self._expected.pop()()

    def _on_time(self) -> None:
        try:
            self._ask()
        finally:
            self._loop = None
        self.flush()
        if self._lines:
            self._arm()

    def _send(self, data: bytes, *, wait: bool) -> bytes:
        """Write groups of whole lines while there is room; return what is left."""
        start = 0
        try:
            while start < len(data) and (wait or self._room.poll(0)):
                end = data.rfind(b"\n", start, start + _GROUP_BYTES) + 1 or data.find(b"\n", start) + 1 or len(data)
                start += os.write(self._fd, data[start:end])
        except BlockingIOError:
            return data[start:]
        except OSError:
            self.dropped += data.count(b"\n", start)
            return b""
        return data[start:]
