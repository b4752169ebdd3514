"""Counts what the code of a gateway makes for a request: tasks, futures, timers, writes, commands, decodes.

Exact, so that a test may assert it on any machine. What descends from the task that started the gateway (flusher,
report, the test itself) is not counted: it works for no request. The loop's own inside (uvloop is C) isn't seen.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVarTuple
from weakref import WeakSet

import msgspec
import pytest
import uvloop

from gateway.cli.worker import server_config
from gateway.quota.resp import RedisLink, _Wire
from gateway.settings.model import Listen
from gateway.upstream.connection import Connection

Ts = TypeVarTuple("Ts")


class Meter:
    """Counters by kind and by name. `start` forgets what was counted; `sockets` are those of live connections, `writes`
    the peers written to, in order.
    """  # noqa: D205

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.sockets: dict[str, list[Any]] = {"client": [], "upstream": [], "redis": []}
        self._background: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._seen: Counter[tuple[str, str]] = Counter()
        self._started_s = time.monotonic()
        self._script_waits = False
        self.writes: list[str] = []

    def start(self) -> None:
        """Count from now on."""
        self._seen.clear()
        self.writes.clear()
        self._started_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_s

    def of(self, kind: str) -> dict[str, int]:
        """What was counted of a kind since the start, by name."""
        return {name: count for (each, name), count in self._seen.items() if each == kind}

    def total(self, kind: str) -> int:
        """How many of a kind were counted since the start."""
        return sum(self.of(kind).values())

    def note(self, kind: str, name: str) -> None:
        """Count one, unless a task of the background makes it."""
        if not self._in_background():
            self._seen[kind, name] += 1

    def note_script_run(self) -> None:
        """Count a script run as a command, and the next write to Redis as the one that carries it."""
        if not self._in_background():
            self._seen["command", "EVALSHA"] += 1
            self._script_waits = True

    def note_write(self, peer: str) -> None:
        """Count a write. A turn's calls to Redis leave from no task: one that carries the background's alone is not
        counted, be it a script run, as the look for drift makes one now and then.
        """  # noqa: D205
        if peer == "redis":
            if not self._script_waits:
                return
            self._script_waits = False
        self.note("write", peer)
        self.writes.append(peer)

    def note_task(self, task: "asyncio.Task[Any]", site: str) -> None:
        """Count a task; one made in the background belongs there."""
        if self._in_background():
            self._background.add(task)
        else:
            self._seen["task", site] += 1

    def _in_background(self) -> bool:
        """The task that runs now is one that descends from the loop's first, which was made before the loop ran."""
        return not self._loop.is_running() or asyncio.current_task() in self._background


class CountingLoop(uvloop.Loop):
    """uvloop that counts what Python code makes on it. `call_at` goes through `call_later`."""

    def __init__(self) -> None:
        super().__init__()
        self.meter = Meter(self)

    def create_future(self) -> "asyncio.Future[Any]":
        """Count a future."""
        self.meter.note("future", _site())
        return super().create_future()

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> "asyncio.Task[Any]":
        """Count a task."""
        task = super().create_task(coro, name=name, context=context)
        self.meter.note_task(task, _site())
        return task

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Any = None
    ) -> asyncio.TimerHandle:
        """Count a timer."""
        self.meter.note("timer", _site())
        return super().call_later(delay, callback, *args, context=context)


def count_seams(patch: pytest.MonkeyPatch, meter: Meter) -> None:
    """Count writes to sockets, commands to Redis and what a dialect decodes, on connections made from now on."""
    served_by: Any = server_config(lambda: None, Listen()).http
    for peer, protocol in (("client", served_by), ("upstream", Connection), ("redis", _Wire)):
        _count_writes(patch, meter, peer, protocol)
    call, evaluate = RedisLink.call, RedisLink.evaluate

    def counted_call(self: RedisLink, *words: Any) -> Any:
        meter.note("command", str(words[0]))
        return call(self, *words)

    def counted_evaluate(self: RedisLink, *words: Any) -> Any:
        meter.note_script_run()
        return evaluate(self, *words)

    patch.setattr(RedisLink, "call", counted_call)
    patch.setattr(RedisLink, "evaluate", counted_evaluate)
    _count_decodes(patch, meter)


def _count_writes(patch: pytest.MonkeyPatch, meter: Meter, peer: str, protocol: Any) -> None:
    made = protocol.connection_made

    def connection_made(self: Any, transport: Any) -> None:
        meter.sockets[peer].append(transport.get_extra_info("socket"))
        made(self, _CountedTransport(transport, partial(meter.note_write, peer)))

    patch.setattr(protocol, "connection_made", connection_made)


def _count_decodes(patch: pytest.MonkeyPatch, meter: Meter) -> None:
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("gateway.dialects.")]
    found = [
        (module, name) for module in modules for name, value in vars(module).items() if type(value) in _DECODER_TYPES
    ]
    assert found
    for module, name in found:
        site = f"{module.__name__}.{name}"
        patch.setattr(module, name, _CountedDecoder(getattr(module, name), meter, site))


_DECODER_TYPES = {msgspec.json.Decoder}


class _CountedDecoder:
    def __init__(self, decoder: "msgspec.json.Decoder[Any]", meter: Meter, site: str) -> None:
        self._decoder, self._meter, self._site = decoder, meter, site

    def decode(self, data: bytes) -> Any:
        self._meter.note("decode", self._site)
        return self._decoder.decode(data)


class _CountedTransport:
    """A transport that tells of each write, of one buffer or of several at once."""

    def __init__(self, transport: asyncio.Transport, written: Callable[[], None]) -> None:
        self._transport, self._written = transport, written

    def write(self, data: bytes) -> None:
        self._written()
        self._transport.write(data)

    def writelines(self, data: Any) -> None:
        self._written()
        self._transport.writelines(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _site() -> str:
    """The function that called the loop, as `module.qualified_name`."""
    frame = sys._getframe(2)
    return f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}"
