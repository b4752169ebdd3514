"""Clients that leave before their answer: noticed, and the request that serves them cancelled.

Promises: a stream is watched from its first byte; any other request once it has run for `PATIENCE_S`, so that a quick
answer costs no task. A request that is cancelled this way has `gone` set: the straight line settles it as such.
"""

import asyncio

from gateway.edge.exchange import Exchange

PATIENCE_S = 0.5


class Departures:
    """The requests under way in this process; one timer looks after them all."""

    def __init__(self) -> None:
        self.running: set[Exchange] = set()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(PATIENCE_S, self._sweep)

    def watch(self, exchange: Exchange) -> None:
        """Watch from now on; the request's body must have been read."""
        if not exchange.watched:
            exchange.watched = True
            exchange.watcher = self._loop.create_task(_watch(exchange))

    def leave(self, exchange: Exchange) -> None:
        """The request is over."""
        self.running.discard(exchange)
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


async def _watch(exchange: Exchange) -> None:
    message = await exchange.receive()
    while message["type"] != "http.disconnect":
        message = await exchange.receive()
    if not exchange.over and exchange.task is not None:
        exchange.gone = True
        exchange.task.cancel()
