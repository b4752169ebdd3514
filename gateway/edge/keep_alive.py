"""Signs of life to the clients of streams whose upstream is silent, between two events and in their dialect.

Keeps proxies and clients from giving up on a model that thinks, and makes a client that is gone say so. Promises: no
timer a stream and none a chunk; one sweep, and one task for all that it finds; never inside an event, never to a
client that is slow to take what it was sent.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress

from gateway.edge.exchange import Exchange

SWEEPS = 4
"""In each silence that is waited for: a sign comes late by no more than one."""


class KeepAlive:
    """Of the requests in `running`, which is read anew at each sweep. `silence_s` 0 turns it off."""

    def __init__(self, running: Collection[Exchange], silence_s: float) -> None:
        self._running = running
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._speaking: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(silence_s / SWEEPS, self._sweep) if silence_s else None

    def close(self) -> None:
        """Say nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        self._timer = self._loop.call_later(self._silence_s / SWEEPS, self._sweep)
        now_s = self._loop.time()
        silent = [exchange for exchange in self._running if self._is_silent(exchange, now_s)]
        if silent and (self._speaking is None or self._speaking.done()):
            self._speaking = self._loop.create_task(_speak(silent))

    def _is_silent(self, exchange: Exchange, now_s: float) -> bool:
        if exchange.reader is None:
            return False
        if exchange.heard_chunks != exchange.record.chunks:
            exchange.heard_chunks, exchange.heard_s = exchange.record.chunks, now_s
        if now_s - exchange.heard_s < self._silence_s:
            return False
        exchange.heard_s = now_s
        return True


async def _speak(silent: list[Exchange]) -> None:
    for exchange in silent:
        reader = exchange.reader
        if reader is None or reader.mid_event or reader.finished or exchange.over or exchange.gone:
            continue
        if exchange.head_sent:
            # Nothing here waits: what was looked at still holds when the sign is written.
            sign = exchange.dialect.sign_of_life
            with suppress(RuntimeError):
                await exchange.send(
                    {"type": "http.response.body", "body": sign, "more_body": True, "dropped_if_choked": True}
                )
