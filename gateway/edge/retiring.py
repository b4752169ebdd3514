"""Transports that a reload has left without a route: closed after the last request that may use them."""

import asyncio
from collections.abc import Iterable

from gateway.edge.departure import Departures
from gateway.upstream.transport import Transport

LOOK_S = 0.5


class Retiring:
    """Of one process. Requests that began after `retire` know nothing of what it was given."""

    def __init__(self, departures: Departures) -> None:
        self._departures = departures
        self._tasks: set[asyncio.Task[None]] = set()

    def retire(self, transports: Iterable[Transport]) -> None:
        """Close these once every request under way now has ended."""
        task = asyncio.create_task(self._outlive(tuple(transports)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Close what is left, at once."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _outlive(self, transports: tuple[Transport, ...]) -> None:
        running = self._departures.running
        left = set(running)
        try:
            while left:
                await asyncio.sleep(LOOK_S)
                left &= running
        finally:
            for transport in transports:
                await transport.aclose()
