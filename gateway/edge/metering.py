"""Metering for apps that call their upstream by themselves: reserve before, settle after, over HTTP.

`POST {prefix}/<verb>`, with the account's own key. What the verbs do is in
`metering_verbs.py`; this is the line that each of them takes: identify, read, do, record. Fails with Fault, in the
shape of a path that no route matches; a refusal is the proxy's own answer.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.domain.accounts import Caller
from gateway.domain.faults import INTERNAL, Fault
from gateway.domain.metered import ROUTE
from gateway.edge.exchange import Exchange, Receive, Scope, Send
from gateway.edge.key_scope import check_scope
from gateway.edge.metering_verbs import MeteringVerbs
from gateway.edge.reply import send_fault
from gateway.edge.request_body import announced_bytes, read_whole
from gateway.edge.request_id import new_request_id
from gateway.telemetry.record import RequestRecord

BODY_BYTES = 65_536

VERBS = ("reserve", "extend", "lease", "settle", "release", "usage")
"""The last segments of the paths; each is a method of `MeteringVerbs`."""

Verb = Callable[[Exchange, Caller, bytes, bytes], Awaitable[None]]
"""Answers one call: its exchange, who calls, by which key, and the body."""


@dataclass(frozen=True, slots=True)
class Metering:
    """Serves `VERBS` as a bare ASGI app, by the parts by which the proxy serves requests."""

    verbs: MeteringVerbs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call and tell its record."""
        request_id = new_request_id()
        record = RequestRecord(request_id, scope["method"], scope["path"], route=ROUTE, endpoint=ROUTE)
        record.started_s = time.perf_counter()
        exchange = Exchange(scope, receive, send, request_id, record, self.verbs.proxy.unmatched)
        try:
            await self._serve(exchange)
        except Fault as fault:
            record.status = fault.kind.status
            await send_fault(exchange, fault)
        except Exception as error:
            await send_fault(exchange, Fault(INTERNAL, f"{type(error).__name__}: {error}"))
            raise
        finally:
            record.ended_s = time.perf_counter()
            self.verbs.proxy.finish(record)

    async def _serve(self, exchange: Exchange) -> None:
        scope = exchange.scope
        token, caller = await self.verbs.proxy.callers.identify(exchange)
        exchange.record.tier = caller.tier
        if caller.scope is not None:
            check_scope(caller.scope, scope["raw_path"], None)
        body = await read_whole(exchange, announced_bytes(scope["headers"]), BODY_BYTES)
        verb: Verb = getattr(self.verbs, scope["path"].rpartition("/")[2])
        await verb(exchange, caller, token, body)
