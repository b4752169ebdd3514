"""Leases: the signs of life that keep what running requests hold from being reaped.

Promises: a request that runs is renewed at a third of its lease, with its usage so far, so that a death costs at most
what came since; the loop gets its turn between batches. Fails with Fault(LIMITER_UNAVAILABLE); the next call goes on.
"""

import time
from collections.abc import Collection

from gateway.edge.exchange import Exchange
from gateway.edge.settling import Settling
from gateway.quota.limiter import Limiter

AT_ONCE = 64


class Leases:
    """Of the requests in `running`, which is read anew at each call."""

    def __init__(self, limiter: Limiter, settling: Settling, running: Collection[Exchange], lease_s: float) -> None:
        self._limiter = limiter
        self._settling = settling
        self._running = running
        self._age_s = lease_s / 3

    async def renew(self, *, everything: bool = False) -> None:
        """Renew the leases that are a third over, or each one."""
        now_s = time.perf_counter()
        latest_s = now_s if everything else now_s - self._age_s
        due = [
            exchange
            for exchange in self._running
            if exchange.holding and max(exchange.renewed_s, exchange.record.reserved_s) <= latest_s
        ]
        for first in range(0, len(due), AT_ONCE):
            batch = due[first : first + AT_ONCE]
            renewals = [self._settling.renewal(exchange) for exchange in batch]
            await self._limiter.renew([renewal for renewal in renewals if renewal is not None])
            for exchange in batch:
                exchange.renewed_s = now_s
