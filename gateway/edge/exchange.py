"""One request under way: what the straight line has found out about it so far."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from gateway.dialects.dialect import Ask, Dialect, StreamReader
from gateway.domain.decisions import Reservation
from gateway.domain.gates import Gate
from gateway.domain.limits import MAXIMUM
from gateway.domain.model_gate import ModelGate
from gateway.domain.usage import Usage
from gateway.snapshot import Frame, Plan
from gateway.telemetry.record import RequestRecord
from gateway.upstream.target import Target

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Allowance(msgspec.Struct, eq=False):
    """What a stream may still say; as made, anything.

    At `look_bytes` sent it is looked at again. `held_tokens` is the output held; `strict` that the stream ends where
    it has used that up; `refused` that there is no more; `asking` asks for more. Of its text, `counted_bytes` were
    counted as `counted_tokens`, and the rest is taken to have `tokens_a_byte`; `reported_tokens` of output were the
    upstream's own count when last looked at. What comes in one read is looked at in
    pieces of `piece_bytes`, 0 as it is.
    """

    look_bytes: int = MAXIMUM
    held_tokens: int = 0
    strict: bool = False
    refused: bool = False
    tokens_a_byte: float = 1.0
    counted_bytes: int = 0
    counted_tokens: int = 0
    reported_tokens: int = 0
    piece_bytes: int = 0
    asking: "asyncio.Task[None] | None" = None


class Exchange(msgspec.Struct, eq=False):
    """Filled in from top to bottom of `edge/proxy.py`.

    `reader` watches a streamed answer. `used` are the counts of the plan's limits as the limiter last told, this
    request's hold in them while `holding`; `eras` the limiter's as they were known before it was asked. `task`
    serves the request; `gone` says that the client left, `over` that the last bytes were handed to the server,
    after which its silence means nothing. `watched` keeps a second watcher away, `sweeps` counts how often
    `Departures` has met the request, `renewed_s` is when its lease last was (`time.perf_counter()`). `allowance`
    bounds a stream; `heard_chunks` of the upstream had been heard at `heard_s` (the loop's time), when `KeepAlive`
    last met it. `target` is where it went, None where the route has but one; `earlier` what attempts before the
    last one reported that they used. `alias` is what the caller called the model, where that was an alias;
    `conversation_id` and `message_id` are the app's own, where the settings ask for them.
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
    alias: str = ""
    conversation_id: str = ""
    message_id: str = ""
    reader: StreamReader | None = None
    target: Target | None = None
    earlier: Usage | None = None
    allowance: Allowance | None = None
    plan: Plan | None = None
    frame: Frame | None = None
    gate: Gate | ModelGate | None = None
    reservation: Reservation | None = None
    estimate: Usage = Usage()
    used: tuple[int, ...] = ()
    admitted_ms: int = 0
    eras: tuple[str, ...] = ()
    holding: bool = False
    renewed_s: float = 0.0
    head_sent: bool = False
    gone: bool = False
    over: bool = False
    heard_chunks: int = -1
    heard_s: float = 0.0
