"""Clients that leave before their answer: noticed, and the request that serves them cancelled or drained.

Promises: a stream is watched from its first byte; any other request once it has run for `PATIENCE_S`, so that a quick
answer costs no task. A request whose client left has `gone` set: the straight line settles it as such. Where its tier
drains, it goes on as before, and what it sends is thrown away: at most `max_drains` at once, for `drain_s` each, one
read and the bounded text of each in memory; beyond, it is cancelled.
"""

import asyncio

from gateway.domain.limits import OnDisconnect
from gateway.edge.exchange import Exchange

PATIENCE_S = 0.5


class Departures:
    """The requests under way in this process; one timer looks after them all.

    `draining` are those whose client has left, with when they are given up (the loop's time).
    """

    def __init__(self, max_drains: int, drain_s: float) -> None:
        self.running: set[Exchange] = set()
        self.draining: dict[Exchange, float] = {}
        self._max_drains = max_drains
        self._drain_s = drain_s
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(PATIENCE_S, self._sweep)

    def watch(self, exchange: Exchange) -> None:
        """Watch from now on; the request's body must have been read."""
        if not exchange.watched:
            exchange.watched = True
            exchange.watcher = self._loop.create_task(self._watch(exchange))

    def leave(self, exchange: Exchange) -> None:
        """The request is over."""
        self.running.discard(exchange)
        self.draining.pop(exchange, None)
        if exchange.watcher is not None:
            exchange.watcher.cancel()
            exchange.watcher = None

    def close(self) -> None:
        """Stop looking."""
        self._timer.cancel()

    def _sweep(self) -> None:
        self._timer = self._loop.call_later(PATIENCE_S, self._sweep)
        for exchange in self.running:
            if exchange.sweeps and exchange.ask is not None:
                self.watch(exchange)
            exchange.sweeps += 1
        now_s = self._loop.time()
        for exchange in [waiting for waiting, until_s in self.draining.items() if until_s <= now_s]:
            del self.draining[exchange]
            _cancel(exchange)

    async def _watch(self, exchange: Exchange) -> None:
        message = await exchange.receive()
        while message["type"] != "http.disconnect":
            message = await exchange.receive()
        if exchange.over:
            return
        exchange.gone = True
        if self._drains(exchange):
            self.draining[exchange] = self._loop.time() + self._drain_s
        else:
            _cancel(exchange)

    def _drains(self, exchange: Exchange) -> bool:
        plan = exchange.plan
        drains = plan is not None and plan.tier.on_disconnect is OnDisconnect.DRAIN
        return drains and exchange.holding and len(self.draining) < self._max_drains


def _cancel(exchange: Exchange) -> None:
    if exchange.task is not None:
        exchange.task.cancel()
