"""The replacement of the workers, one after another, while the others serve: what SIGUSR2 asks for.

A worker's successor is started on the same listening socket; once it is at work the old one is told to leave, and ends
its answers within its grace. So no connection is without a worker to take it. A successor that can't start ends the
replacement, and the old ones serve on.
"""

import os
import signal
import time
from collections.abc import Callable

from gateway.cli.child import Child
from gateway.cli.reloading import Reloading
from gateway.telemetry.log import log


class Renewal:
    """Of `workers`, in which successors take the places of those they follow."""

    def __init__(
        self,
        workers: list[Child],
        fork: Callable[[Child], None],
        reloading: Reloading,
        leave_within_s: float,
    ) -> None:
        self._workers, self._fork = workers, fork
        self._reloading = reloading
        self._leave_within_s = leave_within_s
        self._old: list[Child] = []
        self._coming: Child | None = None
        self._leaving: Child | None = None
        self._replaced = 0

    def passing(self) -> list[Child]:
        """The processes that are not among the workers yet, or not any more."""
        return [child for child in (self._coming, self._leaving) if child is not None]

    def begin(self) -> None:
        """Replace every worker that runs now; one that is being replaced is not replaced twice."""
        self._old, self._replaced = list(self._workers), 0

    def go_on(self) -> None:
        """Take the next step, if it is time for it."""
        leaving, coming = self._leaving, self._coming
        if leaving is not None and time.monotonic() >= leaving.due_s:
            _signal(leaving, signal.SIGKILL)
        if coming is not None and coming.ready:
            self._take_place(coming)
        elif coming is None and leaving is None and self._old:
            follow = self._old[0].follow
            if follow is None:
                raise AssertionError("a worker has a successor")
            self._coming = follow()
            self._fork(self._coming)

    def ended(self, child: Child) -> bool:
        """A process has ended; whether that is this file's concern."""
        if child is self._leaving:
            self._leaving = None
            self._replaced += 1
            if not self._old:
                log.info("workers_restarted", workers=self._replaced)
            return True
        if child is not self._coming:
            return False
        log.error("restart_failed", process=child.name, replaced=self._replaced, left=len(self._old))
        if not self._replaced:
            self._reloading.revert()
        self._coming, self._old = None, []
        return True

    def _take_place(self, coming: Child) -> None:
        old = self._old.pop(0)
        self._workers[self._workers.index(old)] = coming
        old.listening = None  # it is the successor's now
        self._coming, self._leaving = None, old
        old.due_s = time.monotonic() + self._leave_within_s
        if old.pid:
            _signal(old, signal.SIGTERM)
        else:
            self.ended(old)


def _signal(child: Child, number: signal.Signals) -> None:
    os.kill(child.pid, number)
