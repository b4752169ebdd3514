"""One request under way: what the straight line has found out about it so far."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from gateway.dialects.dialect import Ask, Dialect, StreamReader
from gateway.domain.decisions import Reservation
from gateway.domain.usage import Usage
from gateway.snapshot import Frame, Plan
from gateway.telemetry.record import RequestRecord

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Exchange(msgspec.Struct, eq=False):
    """Filled in from top to bottom of `edge/proxy.py`.

    `reader` watches a streamed answer. `used` are the counts of the plan's limits as the limiter last told, this
    request's hold in them while `holding`. `task` serves the request; `gone` says that the client left, `over` that the
    last bytes were handed to the server, after which its silence means nothing. `watched` keeps a second watcher away,
    `sweeps` counts how often `Departures` has met the request, `renewed_s` is when its lease last was
    (`time.perf_counter()`).
    """

    scope: Scope
    receive: Receive
    send: Send
    request_id: str
    record: RequestRecord
    dialect: Dialect
    task: "asyncio.Task[Any] | None" = None
    watcher: "asyncio.Task[None] | None" = None
    watched: bool = False
    sweeps: int = 0
    ask: Ask | None = None
    reader: StreamReader | None = None
    plan: Plan | None = None
    frame: Frame | None = None
    reservation: Reservation | None = None
    estimate: Usage = Usage()
    used: tuple[int, ...] = ()
    admitted_ms: int = 0
    holding: bool = False
    renewed_s: float = 0.0
    head_sent: bool = False
    gone: bool = False
    over: bool = False
