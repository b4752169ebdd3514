"""The breaker: after a few failures in a row the limiter is taken for silent, and asked by one probe at a time.

Promises: while it is open nobody waits; the probe is the breaker's own, so that no request pays for finding out;
pauses between probes grow and are jittered, so that a fleet doesn't come back as one. Costs an attribute a call while
all is well. Fails never: a probe that can't be sent is a failed one. Made and used inside one loop.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.telemetry.log import log

UNAVAILABLE = frozenset({"READONLY", "LOADING", "OOM", "MISCONF", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "BUSY"})
"""First words of error replies that say how the server is, not what was wrong with the call."""

FIRST_PAUSE_S = 0.1


class Breaker:
    """Opens after `failures` in a row, or at one answer that says `UNAVAILABLE`.

    `probe` makes one call that only a server fit to write answers well; pauses between probes grow to
    `longest_pause_s`. `told` is called with True once it is open, with False once it is closed again.
    """

    def __init__(
        self,
        probe: "Callable[[], asyncio.Future[Any]]",
        *,
        failures: int = 3,
        longest_pause_s: float = 2.0,
    ) -> None:
        self.open = False
        self.told: Callable[[bool], None] = lambda _: None
        self._probe = probe
        self._most = failures
        self._longest_pause_s = longest_pause_s
        self._failed = 0
        self._probes = 0
        self._detail = ""
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def check(self) -> None:
        """Raises Fault(LIMITER_UNAVAILABLE) while it is open."""
        if self.open:
            raise Fault(LIMITER_UNAVAILABLE, f"not asked: the limiter failed lately: {self._detail}")

    def succeed(self) -> None:
        """A call was answered. While it is open only the probe's answer counts."""
        self._failed = 0

    def fail(self, detail: str, *, unfit: bool = False) -> None:
        """A call got no answer; or, `unfit`, the server said itself that it can't serve: that is enough."""
        self._failed += 1
        self._detail = detail
        if (unfit or self._failed >= self._most) and not self.open and not self._closed:
            self.open = True
            self._probes = 0
            log.error("breaker_opened", failures=self._failed, detail=detail)
            self._pause()
            self.told(True)

    def close(self) -> None:
        """Probe no more; for the end of the process."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _pause(self) -> None:
        longest_s = min(FIRST_PAUSE_S * 2**self._probes, self._longest_pause_s)
        self._probes = min(self._probes + 1, 16)
        pause_s = random.uniform(longest_s / 2, longest_s)  # noqa: S311  # jitter is no secret
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._ask)

    def _ask(self) -> None:
        self._probe().add_done_callback(self._answered)

    def _answered(self, reply: "asyncio.Future[Any]") -> None:
        if self._closed or reply.cancelled():
            return
        error = reply.exception()
        if error is not None:
            self._detail = error.internal if isinstance(error, Fault) else str(error)
            self._pause()
            return
        self.open = False
        self._failed = 0
        log.warning("breaker_closed", probes=self._probes)
        self.told(False)
