"""The supervisor: forks the gateway's processes, starts dead ones again, and takes them down in order.

Promises: `on_ready` once, when all are ready; a process that dies later is started again, after 0.1 s doubling to 5 s,
and no other is touched; on a signal the workers end first, what they lean on after them. SIGHUP and a change of the
file reload, SIGUSR2 replaces the workers (`renewal`). It runs no event loop and no thread, so that forking is safe at
any time. Children learn of its death, even by SIGKILL, from a pipe that ends. A process that dies before the first
`on_ready` ends the start: `run` returns 1.
"""

import os
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from gateway.cli.child import READY, Child, Lifeline, nameless
from gateway.cli.reloading import Reloading
from gateway.cli.renewal import Renewal
from gateway.domain.faults import Fault
from gateway.quota.embedded import EmbeddedValkey, EmbeddedValkeyError
from gateway.settings.changes import Reach
from gateway.settings.handout import pack
from gateway.telemetry.log import flush, log

FIRST_PAUSE_S, LONGEST_PAUSE_S, SETTLED_S = 0.1, 5.0, 30.0
"""The pause before a restart doubles, from the first to the longest, until a process has lived for SETTLED_S."""

FORCED_S = 4.0
"""What is left to the children after a second signal."""

LOOK_S = 1.0
"""Between two looks at the settings file."""

_STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})
_HANDLED = _STOPPING | {signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR2}
_TERMINAL = "/dev/tty"


class Supervisor:
    """Runs `workers`, and `below` them what they need, by the settings that `reloading` has in force.

    `let_go` closes, in a child, what is the supervisor's alone.
    """

    def __init__(
        self,
        workers: Sequence[Child],
        below: Sequence[Child],
        valkey: EmbeddedValkey | None,
        reloading: Reloading,
        *,
        let_go: Callable[[], None],
        on_ready: Callable[[], None],
        stop_within_s: float,
    ) -> None:
        self._workers, self._below = list(workers), list(below)
        self._reloading = reloading
        self._renewal = Renewal(self._workers, self._fork, reloading, stop_within_s)
        self._valkey = valkey
        self._let_go, self._on_ready, self._stop_within_s = let_go, on_ready, stop_within_s
        self._selector = selectors.DefaultSelector()
        self._alive_read, self._alive_write = os.pipe()
        self._woken, self._wake = socket.socketpair()
        self._signals = 0
        self._reload_asked = self._renewal_asked = False
        self._has_terminal = _has_terminal()
        self._look_s = time.monotonic()
        self._announced = False
        self._untold = False
        self._died = 0
        self._status = 0

    def run(self) -> int:
        """Serve until a signal or a failed start; returns the exit status. Valkey is the caller's to stop."""
        self._listen_for_signals()
        self._watch_valkey()
        try:
            for child in self._lasting():
                self._fork(child)
            while not self._signals and not self._status:
                self._turn(self._until_due())
                self._start_due()
                if not self._announced and all(child.ready for child in self._lasting()):
                    self._announced = True
                    self._on_ready()
                self._conduct()
        finally:
            workers = [*self._workers, *self._renewal.passing()]
            for child in workers:
                child.deaf()
            self._end(workers)
            self._end(self._below)
        return self._status

    def _lasting(self) -> list[Child]:
        """Those that are to run, and are started again where they die."""
        return [*self._below, *self._workers]

    def _all(self) -> list[Child]:
        return [*self._lasting(), *self._renewal.passing()]

    def _listen_for_signals(self) -> None:
        for number in _HANDLED:
            signal.signal(number, lambda *_: None)
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._on_signal)

    def _on_signal(self) -> None:
        for number in self._woken.recv(256):
            if number in _STOPPING or (number == signal.SIGHUP and self._has_terminal and not _has_terminal()):
                self._signals += 1
            self._reload_asked |= number == signal.SIGHUP
            self._renewal_asked |= number == signal.SIGUSR2

    def _conduct(self) -> None:
        """Take a change of the settings, and go on with the replacement of the workers."""
        if not self._announced or self._signals or self._status:
            return
        now_s = time.monotonic()
        if now_s >= self._look_s:
            self._look_s = now_s + LOOK_S
            self._reload_asked |= self._reloading.has_changed()
            self._reloading.write_metrics(self._died)
        if self._reload_asked:
            self._reload_asked = False
            self._reload()
        if self._renewal_asked:
            self._renewal_asked = False
            self._reloading.take(Reach.WORKERS)
            if not self._reloading.refused:
                self._renewal.begin()
        self._renewal.go_on()
        if self._untold and not any(child.behind for child in self._workers):
            self._untold = False
            log.info("settings_taken", version=self._reloading.version, workers=len(self._workers))

    def _reload(self) -> None:
        """Read the file, and hand what it says to every worker."""
        if not self._reloading.take():
            return
        workers = [child for child in self._all() if child not in self._below and child.pid]
        file = nameless(pack(self._reloading.handout(min((child.number for child in workers), default=0))))
        for child in workers:
            child.hand(file)
        os.close(file)
        self._untold = True

    def _turn(self, timeout_s: float) -> None:
        """Wait for something to happen, and take note of it."""
        for key, _ in self._selector.select(timeout_s):
            key.data()
        for child in self._all():
            if child.pid and os.waitpid(child.pid, os.WNOHANG)[0]:
                self._on_death(child)

    def _on_death(self, child: Child) -> None:
        now = time.monotonic()
        child.pid, child.behind = 0, 0
        self._unlink(child)
        if self._signals or self._status or self._renewal.ended(child):
            return
        if not self._announced:
            self._status = 1
            return
        if now - child.started_s > SETTLED_S:
            child.pause_s = 0.0
        child.pause_s = min(LONGEST_PAUSE_S, child.pause_s * 2 or FIRST_PAUSE_S)
        child.due_s = now + child.pause_s
        if child.pause_s > FIRST_PAUSE_S:
            child.deaf()  # the first time clients wait for the next one; one that dies again is out of the deal
        self._died += 1
        log.error("process_died", process=child.name, starts_again_in_s=child.pause_s)

    def _until_due(self) -> float:
        """Seconds until something is due. A dead Valkey is tried five times a second."""
        due = [child.due_s for child in self._lasting() if not child.pid]
        if self._valkey is not None and self._valkey.link is None:
            due.append(time.monotonic() + 0.2)
        return max(0.0, min([*due, self._look_s]) - time.monotonic()) if self._announced else LOOK_S

    def _start_due(self) -> None:
        for child in self._lasting():
            if not child.pid and not self._signals and not self._status and child.due_s <= time.monotonic():
                self._fork(child)
        if self._valkey is not None and self._valkey.link is None and not self._signals:
            self._mend_valkey(self._valkey)

    def _fork(self, child: Child) -> None:
        """Fork with signals held back, so that none reaches the child while it still has the parent's handlers."""
        child.link, theirs = socket.socketpair()
        child.link.setblocking(False)
        if child.listen is not None and (child.listening is None or child.listening.fileno() < 0):
            child.listening = child.listen()
        flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        pid = os.fork()
        if pid == 0:
            self._be(child, Lifeline(self._alive_read, theirs, child.listening), before)
        theirs.close()
        child.pid, child.started_s, child.ready = pid, time.monotonic(), False
        self._selector.register(child.link, selectors.EVENT_READ, lambda: self._on_words(child))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _be(self, child: Child, line: Lifeline, mask: set[int | signal.Signals]) -> NoReturn:
        """The child's side of the fork. It never returns into the supervisor's frames."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # Ctrl-C reaches the whole foreground group; the supervisor alone decides what it means.
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._close_in_child(child)
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

    def _close_in_child(self, own: Child) -> None:
        self._selector.close()
        self._woken.close()
        self._wake.close()
        os.close(self._alive_write)
        for child in [*self._all(), own]:
            if child.link is not None:
                child.link.close()
            if child.listening is not own.listening:
                child.deaf()
        if self._valkey is not None:
            self._valkey.unwatch()
        self._let_go()

    def _on_words(self, child: Child) -> None:
        """What the child says; nothing more where it has ended."""
        words = child.link.recv(256) if child.link is not None else b""
        if not words:
            self._unlink(child)
        child.ready = child.ready or READY in words
        child.behind -= len(words) - words.count(READY)

    def _unlink(self, child: Child) -> None:
        if child.link is not None:
            self._selector.unregister(child.link)
            child.link.close()
            child.link = None

    def _watch_valkey(self) -> None:
        link = self._valkey.watch() if self._valkey is not None else None
        if link is not None:
            self._selector.register(link, selectors.EVENT_READ, self._on_valkey_gone)

    def _on_valkey_gone(self) -> None:
        if self._valkey is not None and self._valkey.link is not None:
            self._selector.unregister(self._valkey.link)
            self._valkey.unwatch()
            self._died += 1
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


def _has_terminal() -> bool:
    """Whether this process belongs to a terminal that is there: one that is closed sends SIGHUP, too."""
    try:
        os.close(os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _title(name: str) -> None:
    """Show the process under this name in ps and top; Linux only, and never worth failing for."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)
