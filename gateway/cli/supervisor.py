"""The supervisor: forks the gateway's processes, starts dead ones again, and takes them down in order.

Promises: `on_ready` once, when all are ready; a process that dies later is started again, after 0.1 s doubling to 5 s,
and no other is touched; on a signal the workers end first, what they lean on after them. It runs no event loop and no
thread, so that forking is safe at any time. Children learn of its death, even by SIGKILL, from a pipe that ends.
A process that dies before the first `on_ready` ends the start: `run` returns 1.
"""

import os
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from gateway.domain.faults import Fault
from gateway.quota.embedded import EmbeddedValkey, EmbeddedValkeyError
from gateway.telemetry.log import flush, log

FIRST_PAUSE_S, LONGEST_PAUSE_S, SETTLED_S = 0.1, 5.0, 30.0
"""The pause before a restart doubles, from the first to the longest, until a process has lived for SETTLED_S."""

FORCED_S = 4.0
"""What is left to the children after a second signal."""

_STOPPING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_HANDLED = _STOPPING | {signal.SIGCHLD}


@dataclass(frozen=True, slots=True)
class Lifeline:
    """A child's tie to its supervisor: `alive_fd` turns readable when the supervisor is gone."""

    alive_fd: int
    ready_fd: int

    def ready(self) -> None:
        """Tell that this child is at work."""
        with suppress(OSError):
            os.write(self.ready_fd, b"r")
        os.close(self.ready_fd)


@dataclass(slots=True)
class Child:
    """A process to keep running. `body` is its whole life; what it raises is printed and ends it."""

    name: str
    body: Callable[[Lifeline], None]
    pid: int = 0
    ready: bool = False
    started_s: float = 0.0
    pause_s: float = 0.0
    due_s: float = 0.0
    ready_fd: int = -1


class Supervisor:
    """Runs `workers`, and `below` them what they need. `let_go` closes, in a child, what is the supervisor's alone."""

    def __init__(
        self,
        workers: Sequence[Child],
        below: Sequence[Child],
        valkey: EmbeddedValkey | None,
        *,
        let_go: Callable[[], None],
        on_ready: Callable[[], None],
        stop_within_s: float,
    ) -> None:
        self._workers, self._below, self._children = workers, below, [*below, *workers]
        self._valkey = valkey
        self._let_go, self._on_ready, self._stop_within_s = let_go, on_ready, stop_within_s
        self._selector = selectors.DefaultSelector()
        self._alive_read, self._alive_write = os.pipe()
        self._woken, self._wake = socket.socketpair()
        self._signals = 0
        self._announced = False
        self._status = 0

    def run(self) -> int:
        """Serve until a signal or a failed start; returns the exit status. Valkey is the caller's to stop."""
        self._listen_for_signals()
        self._watch_valkey()
        try:
            for child in self._children:
                self._fork(child)
            while not self._signals and not self._status:
                self._turn(self._until_due())
                self._start_due()
                if not self._announced and all(child.ready for child in self._children):
                    self._announced = True
                    self._on_ready()
        finally:
            self._end(self._workers)
            self._end(self._below)
        return self._status

    def _listen_for_signals(self) -> None:
        for number in _HANDLED:
            signal.signal(number, lambda *_: None)
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._on_signal)

    def _on_signal(self) -> None:
        for number in self._woken.recv(256):
            self._signals += number in _STOPPING

    def _turn(self, timeout_s: float | None) -> None:
        """Wait for something to happen, and take note of it."""
        for key, _ in self._selector.select(timeout_s):
            key.data()
        for child in self._children:
            if child.pid and os.waitpid(child.pid, os.WNOHANG)[0]:
                self._on_death(child)

    def _on_death(self, child: Child) -> None:
        now = time.monotonic()
        child.pid = 0
        self._forget_ready(child)
        if self._signals or self._status:
            return
        if not self._announced:
            self._status = 1
            return
        if now - child.started_s > SETTLED_S:
            child.pause_s = 0.0
        child.pause_s = min(LONGEST_PAUSE_S, child.pause_s * 2 or FIRST_PAUSE_S)
        child.due_s = now + child.pause_s
        log.error("process_died", process=child.name, starts_again_in_s=child.pause_s)

    def _until_due(self) -> float | None:
        """Seconds until the next restart, None when nothing is due. A dead Valkey is tried five times a second."""
        due = [child.due_s for child in self._children if not child.pid]
        if self._valkey is not None and self._valkey.link is None:
            due.append(time.monotonic() + 0.2)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start_due(self) -> None:
        for child in self._children:
            if not child.pid and not self._signals and not self._status and child.due_s <= time.monotonic():
                self._fork(child)
        if self._valkey is not None and self._valkey.link is None and not self._signals:
            self._mend_valkey(self._valkey)

    def _fork(self, child: Child) -> None:
        """Fork with signals held back, so that none reaches the child while it still has the parent's handlers."""
        child.ready_fd, ready_write = os.pipe()
        flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        pid = os.fork()
        if pid == 0:
            self._be(child, Lifeline(self._alive_read, ready_write), before)
        os.close(ready_write)
        child.pid, child.started_s = pid, time.monotonic()
        self._selector.register(child.ready_fd, selectors.EVENT_READ, lambda: self._on_ready_byte(child))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _be(self, child: Child, line: Lifeline, mask: set[int | signal.Signals]) -> NoReturn:
        """The child's side of the fork. It never returns into the supervisor's frames."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # Ctrl-C reaches the whole foreground group; the supervisor alone decides what it means.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._close_in_child()
            _title(child.name)
            child.body(line)
            status = 0
        except Fault as fault:
            log.error("process_failed", process=child.name, error=str(fault))
        except BaseException:  # noqa: BLE001  # entry of a process: whatever ends it is printed, then it ends
            traceback.print_exc()
        finally:
            flush()
            os._exit(status)

    def _close_in_child(self) -> None:
        self._selector.close()
        self._woken.close()
        self._wake.close()
        os.close(self._alive_write)
        for child in self._children:
            if child.ready_fd >= 0:
                os.close(child.ready_fd)
        if self._valkey is not None:
            self._valkey.unwatch()
        self._let_go()

    def _on_ready_byte(self, child: Child) -> None:
        child.ready = bool(os.read(child.ready_fd, 1))
        self._forget_ready(child)

    def _forget_ready(self, child: Child) -> None:
        if child.ready_fd >= 0:
            self._selector.unregister(child.ready_fd)
            os.close(child.ready_fd)
            child.ready_fd = -1

    def _watch_valkey(self) -> None:
        link = self._valkey.watch() if self._valkey is not None else None
        if link is not None:
            self._selector.register(link, selectors.EVENT_READ, self._on_valkey_gone)

    def _on_valkey_gone(self) -> None:
        if self._valkey is not None and self._valkey.link is not None:
            self._selector.unregister(self._valkey.link)
            self._valkey.unwatch()
            log.error("valkey_died", log=str(self._valkey.log))

    def _mend_valkey(self, valkey: EmbeddedValkey) -> None:
        try:
            if valkey.mend():
                self._watch_valkey()
                log.warning("valkey_runs_again")
        except EmbeddedValkeyError as error:
            log.error("valkey_restart_failed", error=str(error))

    def _end(self, children: Sequence[Child]) -> None:
        """SIGTERM, then the children's own grace; a second signal cuts it short; SIGKILL for what is left."""
        forced, deadline = False, time.monotonic() + self._stop_within_s
        self._signal(children, signal.SIGTERM)
        while any(child.pid for child in children):
            if self._signals > 1 and not forced:
                forced, deadline = True, min(deadline, time.monotonic() + FORCED_S)
                self._signal(children, signal.SIGTERM)
            left = deadline - time.monotonic()
            if left <= 0:
                self._signal(children, signal.SIGKILL)
            self._turn(max(left, 0.5))

    def _signal(self, children: Sequence[Child], number: signal.Signals) -> None:
        for child in children:
            if child.pid:
                os.kill(child.pid, number)


def _title(name: str) -> None:
    """Show the process under this name in ps and top; Linux only, and never worth failing for."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)
