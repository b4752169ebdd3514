"""Calls to one script that wait in the same loop turn leave as one EVALSHA.

Promises: one future per call and no task; at most `CALLS` calls a script run, so that none blocks the server for long;
a call whose entry in the reply is an error text fails alone.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.keys import AccountKeys
from gateway.quota.resp import RedisLink, Word
from gateway.quota.scripts import load_script, run

CALLS = 64

Waiting = tuple[AccountKeys, tuple[bytes, ...], "asyncio.Future[Any]"]


class Batch:
    """Gathers the calls of one verb. `on_time` is told the server's clock, in µs, at each reply.

    `now_us` gives the scripts a clock of the caller's own; None leaves them Redis TIME.
    """

    def __init__(
        self, link: RedisLink, verb: str, on_time: Callable[[int], None], now_us: Callable[[], int] | None
    ) -> None:
        self._link = link
        self._script = load_script(verb)
        self._on_time = on_time
        self._now_us = now_us
        self._waiting: list[Waiting] = []
        self._loop = asyncio.get_running_loop()
        self.runs = 0

    def call(self, keys: AccountKeys, *arguments: bytes) -> "asyncio.Future[Any]":
        """The call's entry in the script's reply. Fails with Fault(LIMITER_UNAVAILABLE) as the link does."""
        future = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._leave)
        self._waiting.append((keys, arguments, future))
        return future

    def _leave(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), CALLS):
            self._run(waiting[first : first + CALLS])

    def _run(self, calls: list[Waiting]) -> None:
        names: list[Word] = []
        words: list[Word] = [0 if self._now_us is None else self._now_us()]
        for keys, arguments, _ in calls:
            names += (keys.account, keys.holds, keys.leases, keys.events)
            words += arguments
        self.runs += 1
        run(self._link, self._script, names, words).add_done_callback(lambda reply: self._replied(calls, reply))

    def _replied(self, calls: list[Waiting], reply: "asyncio.Future[Any]") -> None:
        error = reply.exception()
        if error is not None:
            fault = error if isinstance(error, Fault) else Fault(LIMITER_UNAVAILABLE, f"{self._script.name}: {error}")
            for _, _, future in calls:
                _fail(future, fault)
            return
        now_us, *entries = reply.result()
        self._on_time(now_us)
        for (_, _, future), entry in zip(calls, entries, strict=True):
            if isinstance(entry, bytes):
                _fail(future, Fault(LIMITER_UNAVAILABLE, f"{self._script.name}: {entry.decode(errors='replace')}"))
            elif not future.done():
                future.set_result((now_us, entry))


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        # Looked at here, so that a caller who left gives no "exception was never retrieved".
        future.exception()
