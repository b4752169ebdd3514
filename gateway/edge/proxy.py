"""The straight line of a request: route, identify, read, estimate, reserve, forward, relay, settle, record.

Promises: whatever happens, a request that was admitted is settled once, an answer is sent once, and one record tells of
it. A refusal is an answer, not an error; everything that can't be served is a Fault.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from gateway.dialects.dialect import Ask, Dialect
from gateway.dialects.registry import dialect_of_path
from gateway.domain.decisions import Refused
from gateway.domain.faults import INTERNAL, Fault
from gateway.domain.usage import Outcome, Usage
from gateway.edge.admission import Admission
from gateway.edge.app_ids import note_ids
from gateway.edge.attempts import Attempts
from gateway.edge.bandwidth import Bandwidth
from gateway.edge.callers import Callers
from gateway.edge.departure import Departures
from gateway.edge.exchange import Exchange, Receive, Scope, Send
from gateway.edge.headers import forwarded
from gateway.edge.key_scope import check_scope
from gateway.edge.preflight import is_preflight, pass_preflight
from gateway.edge.query_key import without_key
from gateway.edge.relay import Relay
from gateway.edge.reply import send_fault, send_refusal
from gateway.edge.request_body import PASSING_BYTES, announced_bytes, is_awaited, length_of, pass_on, read_whole
from gateway.edge.request_id import new_request_id
from gateway.edge.rules import rule
from gateway.edge.settling import Settling
from gateway.edge.websocket import WebSockets
from gateway.metering.ratio import Ratios
from gateway.snapshot import Route, Snapshot
from gateway.telemetry.record import RequestRecord
from gateway.upstream.transport import Answer


@dataclass(slots=True)
class Proxy:
    """Serves proxied requests as a bare ASGI app.

    `snapshot` is read by each request once; a reload puts another in its place. `unmatched` speaks until a route does;
    `body_bytes` bounds a body that is read whole; `finish` is told each request's record at its end.
    """

    snapshot: Snapshot
    callers: Callers
    admission: Admission
    ratios: Ratios
    relay: Relay
    settling: Settling
    departures: Departures
    bandwidth: Bandwidth
    websockets: WebSockets
    unmatched: Dialect
    body_bytes: int
    finish: Callable[[RequestRecord], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and tell its record."""
        request_id = new_request_id()
        record = RequestRecord(request_id, scope["method"], scope["path"])
        record.started_s = time.perf_counter()
        exchange = Exchange(scope, receive, send, request_id, record, self.unmatched, task=asyncio.current_task())
        self.departures.running.add(exchange)
        try:
            await self._serve(exchange)
        except Fault as fault:
            record.status = fault.kind.status
            self.settling.give_back(exchange, Outcome.FAULT)
            await send_fault(exchange, fault)
        except asyncio.CancelledError:
            await self._cancelled(exchange)
        except Exception as error:
            self.settling.give_back(exchange, Outcome.FAULT)
            await send_fault(exchange, Fault(INTERNAL, f"{type(error).__name__}: {error}"))
            raise
        finally:
            self.departures.leave(exchange)
            record.ended_s = time.perf_counter()
            self.finish(record)

    async def _serve(self, exchange: Exchange) -> None:
        route, path = self._route(exchange)
        if route.passes_preflight and is_preflight(exchange.scope["method"], exchange.scope["headers"]):
            return await pass_preflight(exchange, route, path)
        if "websocket" in exchange.scope:
            return await self.websockets.serve(self.snapshot, exchange, route, path)
        token, caller = await self.callers.identify(exchange)
        body = await self._read(exchange, route)
        asked_path = path
        if self.snapshot.app_ids is not None:
            note_ids(self.snapshot.app_ids, exchange, body)
        if self.snapshot.has_rules:
            path, body = rule(self.snapshot, self.ratios, exchange, route, caller, path, body)
        estimate = self._estimate(exchange, route, path, body)
        if caller.scope is not None:
            check_scope(caller.scope, asked_path, "" if exchange.ask is None else exchange.ask.model, exchange.alias)
        decision = await self.admission.admit(exchange, caller, token, estimate)
        if isinstance(decision, Refused):
            return await send_refusal(exchange, decision)
        if exchange.plan is not None and exchange.plan.bandwidth_byte_s:
            self.bandwidth.pace(exchange, exchange.plan.bandwidth_byte_s)
        answer = await self._forward(exchange, route, path, body)
        return await self.relay.relay(exchange, route, answer)

    def _route(self, exchange: Exchange) -> tuple[Route, bytes]:
        scope, record = exchange.scope, exchange.record
        try:
            route, path = self.snapshot.route(scope["method"], scope["raw_path"])
        except Fault:
            exchange.dialect = dialect_of_path(scope["path"])
            raise
        exchange.dialect = route.dialect
        record.route, record.endpoint, exchange.gate = route.path, route.endpoint, route.gate
        record.dialect, record.upstream = route.dialect.name, route.target.name
        return route, path

    async def _read(self, exchange: Exchange, route: Route) -> bytes | AsyncIterator[bytes]:
        """The body: whole where the dialect reads it or it is short, else as it comes."""
        announced = announced_bytes(exchange.scope["headers"])
        if not route.reads_body and (announced is None or announced > PASSING_BYTES or is_awaited(exchange)):
            exchange.watched = True
            return pass_on(exchange)
        body = await read_whole(exchange, announced, self.body_bytes)
        exchange.record.request_bytes = len(body)
        return body

    def _estimate(self, exchange: Exchange, route: Route, path: bytes, body: bytes | AsyncIterator[bytes]) -> Usage:
        ask = exchange.ask = route.dialect.read_request(body if isinstance(body, bytes) else b"", path)
        output = route.default_max_tokens * ask.choices if ask.max_output is None else ask.max_output
        estimate = exchange.estimate = Usage(self.ratios.tokens(ask.model, ask.prompt_bytes), output)
        exchange.record.model = ask.model
        exchange.record.estimated_tokens = estimate.tokens
        return estimate

    async def _forward(
        self, exchange: Exchange, route: Route, path: bytes, body: bytes | AsyncIterator[bytes]
    ) -> Answer:
        scope, ask = exchange.scope, exchange.ask
        sent = _body_of(ask, body)
        if scope["query_string"]:
            query = without_key(scope["query_string"])
            path = path + b"?" + query if query else path
        if route.choice is not None:
            until_s = time.monotonic() + route.choice.retry.total_s
            answer = await Attempts(exchange, route, route.choice, path, sent, until_s).answer()
            exchange.record.forwarded_s = time.perf_counter()
            return answer
        headers = forwarded(scope["headers"], route.target, exchange.request_id.encode(), plain_answer=route.reads_body)
        length = length_of(exchange, sent)
        answer = await route.target.transport.send(scope["method"].encode(), path, headers, sent, length)
        exchange.record.forwarded_s = time.perf_counter()
        return answer

    async def _cancelled(self, exchange: Exchange) -> None:
        """The client left, or the server is stopping for good: charge what was seen."""
        if exchange.gone and exchange.task is not None:
            exchange.task.uncancel()
        if exchange.holding:
            await self.relay.settle_left(exchange)
        exchange.record.outcome = exchange.record.outcome or Outcome.CLIENT_GONE.value
        if not exchange.gone:
            raise asyncio.CancelledError


def _body_of(ask: Ask | None, body: bytes | AsyncIterator[bytes]) -> bytes | AsyncIterator[bytes]:
    return ask.body if ask is not None and isinstance(body, bytes) else body
