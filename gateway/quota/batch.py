"""Calls to one script that wait in the same loop turn leave as one EVALSHA; on a Cluster as one for each partition.

Promises: no task and no future per call; at most `CALLS` calls a script run, so that none blocks the server for long;
a call whose entry in the reply is an error text fails alone.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.breaker import UNAVAILABLE, Breaker
from gateway.quota.redis_links import Link
from gateway.quota.resp import RedisError, Word
from gateway.quota.scripts import load_script, run

CALLS = 64

HOLDS = 1
"""Which of a call's keys is the same for all calls of a partition, and for no others."""

Reply = tuple[int, Any] | Fault
"""The server's time in µs and the call's entry in the script's reply; or the fault that kept it away."""

Take = Callable[[Reply], None]

Waiting = tuple[tuple[bytes, ...], tuple[bytes, ...], Take]


class CallFault(Fault):
    """A call that the server failed alone, for what is in it or in its keys: it will fail again."""


class Batch:
    """Gathers the calls of one verb. `on_time` is told the server's clock, in µs, at each reply, `breaker` how it went.

    `now_us` gives the scripts a clock of the caller's own; None leaves them Redis TIME. The breaker is one for all
    accounts, so it hears nothing of a Cluster, whose link fails the calls to a lost shard alone, and at once.
    """

    def __init__(
        self,
        link: Link,
        verb: str,
        on_time: Callable[[int], None],
        now_us: Callable[[], int] | None,
        breaker: Breaker,
    ) -> None:
        self._link = link
        self._breaker = breaker
        self._script = load_script(verb)
        self._on_time = on_time
        self._now_us = now_us
        self._waiting: list[Waiting] = []
        self._loop = asyncio.get_running_loop()
        self.runs = 0

    def call(self, keys: tuple[bytes, ...], arguments: tuple[bytes, ...], take: Take) -> None:
        """Send the call with the others of this turn; `take` gets its reply. A callback, as a future costs a turn."""
        if not self._waiting:
            self._loop.call_soon(self._leave)
        self._waiting.append((keys, arguments, take))

    def _leave(self) -> None:
        waiting, self._waiting = self._waiting, []
        if self._link.apart and len(waiting) > 1:
            partitions: dict[bytes, list[Waiting]] = {}
            for call in waiting:
                partitions.setdefault(call[0][HOLDS], []).append(call)
            for calls in partitions.values():
                self._run_all(calls)
        else:
            self._run_all(waiting)

    def _run_all(self, calls: list[Waiting]) -> None:
        for first in range(0, len(calls), CALLS):
            self._run(calls[first : first + CALLS])

    def _run(self, calls: list[Waiting]) -> None:
        names: list[Word] = []
        words: list[Word] = [0 if self._now_us is None else self._now_us()]
        for keys, arguments, _ in calls:
            names += keys
            words += arguments
        self.runs += 1
        run(self._link, self._script, names, words).add_done_callback(partial(self._replied, calls))

    def _replied(self, calls: list[Waiting], reply: "asyncio.Future[Any]") -> None:
        error = reply.exception()
        if error is not None:
            fault = error if isinstance(error, Fault) else self._fault(str(error))
            unfit = isinstance(error, RedisError) and error.code in UNAVAILABLE
            if (unfit or not isinstance(error, RedisError)) and not self._link.apart:
                self._breaker.fail(fault.internal, unfit=unfit)
            for _, _, take in calls:
                take(fault)
            return
        now_us, *entries = reply.result()
        self._on_time(now_us)
        if not self._link.apart:
            self._judge(entries)
        for (_, _, take), entry in zip(calls, entries, strict=True):
            take(self._fault_of(entry.decode(errors="replace")) if isinstance(entry, bytes) else (now_us, entry))

    def _judge(self, entries: list[Any]) -> None:
        """Tell the breaker. A script catches what a server says that takes no writes, and hands it on as text."""
        for entry in entries:
            if isinstance(entry, bytes) and entry.partition(b" ")[0].decode(errors="replace") in UNAVAILABLE:
                self._breaker.fail(entry.decode(errors="replace"), unfit=True)
                return
        self._breaker.succeed()

    def _fault_of(self, text: str) -> Fault:
        """What the text of a call's entry means, which says how the server is or what was wrong with the call."""
        if text.partition(" ")[0] in UNAVAILABLE:
            return self._fault(text)
        return CallFault(LIMITER_UNAVAILABLE, f"{self._script.name}.lua: {text}")

    def _fault(self, text: str) -> Fault:
        return Fault(LIMITER_UNAVAILABLE, f"{self._script.name}.lua: {text}")
