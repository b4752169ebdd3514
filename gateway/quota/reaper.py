"""The reaper: settles what dead gateways held, and keeps alive what this one holds. One runs in every worker.

Promises: a hold is reaped about a second after its lease ended; never by a worker that has cause to think that others
could not renew theirs in time: it waits until they can have. Outlives whatever goes wrong, and logs the first failure
of a row.
"""

import asyncio
import random
import time
from typing import NoReturn, Protocol

from gateway.quota.limiter import Limiter
from gateway.telemetry.log import log

PAUSE_S = 1.0
SPREAD_S = 0.2
"""Up to so much shorter or longer, as workers that start together should not look together."""

LATE_S = 5.0
"""A turn later than this means that the process, or the machine with all others, stood still."""

PATIENCE_S = 5.0
"""How long after a failure or a standstill nothing is reaped: time for each worker to reach the limiter and renew."""


class Renew(Protocol):
    """Renews the leases of this process: those that are due, or everything."""

    async def __call__(self, *, everything: bool) -> None:
        """Raises Fault(LIMITER_UNAVAILABLE)."""
        ...


class Reaper:
    """`reaped` is how many holds this process reaped so far."""

    def __init__(self, limiter: Limiter, renew: Renew) -> None:
        self.reaped = 0
        self._limiter = limiter
        self._renew = renew
        self._failing = False
        self._reaps_from_s = 0.0

    async def run(self) -> NoReturn:
        """Renew and reap, until cancelled."""
        seen_s = time.time()
        while True:
            await asyncio.sleep(PAUSE_S + random.uniform(-SPREAD_S, SPREAD_S))  # noqa: S311  # spreads, hides nothing
            now_s = time.time()
            await self._turn(stood_still=not 0 <= now_s - seen_s <= LATE_S)
            seen_s = now_s

    async def _turn(self, *, stood_still: bool) -> None:
        shaken = self._failing or stood_still
        if shaken:
            self._reaps_from_s = time.monotonic() + PATIENCE_S
        try:
            await self._renew(everything=shaken)
            if time.monotonic() >= self._reaps_from_s:
                self._tell(await self._limiter.reap())
            self._failing = False
        except Exception as error:  # noqa: BLE001  # a background task: it must outlive whatever goes wrong
            if not self._failing:
                log.warning("reaper_failed", detail=repr(error))
            self._failing = True

    def _tell(self, reaped: int) -> None:
        if reaped:
            self.reaped += reaped
            log.warning("holds_reaped", count=reaped)
