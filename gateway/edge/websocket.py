"""A WebSocket's own way: identify, reserve, shake hands with the upstream, join, settle.

Promises: the caller's credential never goes upstream, in whichever of the four places a client puts it; one request and
one running slot are held while it is open. On a metered route the usage that the server tells is charged as it comes:
one hold, extended ahead of each answer; one event, at the end. Fails with Fault as any request does.
"""

import asyncio
import time
from dataclasses import dataclass

from gateway.dialects.openai_realtime import OpenAIRealtime, RealtimeReader, model_in
from gateway.domain.decisions import Extent, Refused
from gateway.domain.faults import CLIENT_GONE, INVALID_HEADER, UPSTREAM_DENIED, Fault
from gateway.domain.limits import OnExhausted
from gateway.domain.usage import CountedBy, Outcome, Usage
from gateway.edge.admission import Admission
from gateway.edge.app_ids import note_ids
from gateway.edge.bandwidth import Bandwidth
from gateway.edge.callers import Callers
from gateway.edge.exchange import Exchange
from gateway.edge.extending import Extending
from gateway.edge.handshakes import shake_hands, takes_websockets
from gateway.edge.headers import returned
from gateway.edge.http_response_head import switching_head
from gateway.edge.key_scope import check_scope
from gateway.edge.relay import Relay, outcome_of
from gateway.edge.reply import OF_THE_UPSTREAM, send_refusal, send_whole, state_headers
from gateway.edge.rules import rule_handshake
from gateway.edge.settling import Settling
from gateway.edge.tunnel import POLICY, Tunnel
from gateway.snapshot import Route, Snapshot
from gateway.upstream.target import Target
from gateway.upstream.transport import Answer
from gateway.upstream.tunnel import MOST_BYTES, SWITCHING, Opened


@dataclass(frozen=True, slots=True)
class WebSockets:
    """Those of this worker. `idle_s` 0 is for ever; `most_bytes` bounds one message of a metered route."""

    callers: Callers
    admission: Admission
    extending: Extending
    relay: Relay
    settling: Settling
    bandwidth: Bandwidth
    idle_s: float
    most_bytes: int

    async def serve(self, snapshot: Snapshot, exchange: Exchange, route: Route, path: bytes) -> None:
        """From the client's handshake to the end."""
        metered = isinstance(route.dialect, OpenAIRealtime)
        if not takes_websockets(route) or (route.reads_body and not metered):
            raise Fault(INVALID_HEADER, public="This route takes no WebSocket.")
        exchange.watched = True
        if snapshot.app_ids is not None:
            note_ids(snapshot.app_ids, exchange, None)
        token, caller = await self.callers.identify(exchange)
        record, query = exchange.record, exchange.scope["query_string"]
        record.model = model_in(query)
        if metered:
            if snapshot.has_rules:
                query = rule_handshake(snapshot, exchange, route, caller, query)
            exchange.estimate = Usage(0, route.default_max_tokens)
            record.estimated_tokens = exchange.estimate.tokens
        if caller.scope is not None:
            check_scope(caller.scope, path, record.model, exchange.alias)
        decision = await self.admission.admit(exchange, caller, token, exchange.estimate)
        if isinstance(decision, Refused):
            return await send_refusal(exchange, decision)
        answer, opened = await shake_hands(exchange, route, path, query)
        try:
            record.forwarded_s = time.perf_counter()
            record.upstream_status = answer.status
            if opened is None or answer.status != SWITCHING:
                return await self._refused(exchange, exchange.target or route.target, answer)
            return await self._join(exchange, route, opened)
        finally:
            answer.close()

    async def _refused(self, exchange: Exchange, target: Target, answer: Answer) -> None:
        """The upstream wants none of it: what it says goes to the client."""
        if target.denies(answer.status):
            raise Fault(UPSTREAM_DENIED, f"upstream {target.name} answered {answer.status}")
        outcome, requests = outcome_of(answer.status)
        self.settling.settle(exchange, Usage(), CountedBy.ESTIMATE, outcome, requests)
        headers = [*returned(answer.headers, target), *state_headers(exchange)]
        if answer.status == 429:
            headers.append((OF_THE_UPSTREAM, target.name.encode()))
        await send_whole(exchange, answer.status, headers, await answer.read_all(MOST_BYTES) or b"")

    async def _join(self, exchange: Exchange, route: Route, opened: Opened) -> None:
        record, plan = exchange.record, exchange.plan
        session = None
        if route.reads_body:
            session = _Session(self.extending, exchange)
        bucket = None
        if plan is not None and plan.bandwidth_byte_s:
            bucket = self.bandwidth.bucket(record.account_id, plan.bandwidth_byte_s)
        tunnel = Tunnel(record, self.idle_s, bucket, session.hear if session else None, self.most_bytes)
        if session:
            session.tunnel = tunnel
        record.status, record.streamed = SWITCHING, True
        record.first_byte_s = time.perf_counter()
        exchange.head_sent = exchange.over = True
        headers = returned(opened.headers, exchange.target or route.target)
        head = switching_head([*headers, *state_headers(exchange)])
        tunnel.upstream.transport = opened.transport
        try:
            await exchange.send({"type": "tollway.switch", "head": head, "end": tunnel.client})
            _check_joined(tunnel)
            opened.transport.set_protocol(tunnel.upstream)
            if opened.body:
                tunnel.upstream.data_received(opened.body)
            tunnel.upstream.release(0)
            outcome = await tunnel.ended
        except BaseException:
            opened.transport.abort()
            if tunnel.joined:
                tunnel.cut()
            raise
        if session and session.asking is not None:
            await session.asking
        await self.relay.settle_stream(exchange, outcome, 1)


class _Session:
    """The usage of a metered WebSocket: after each answer, what was used and one more answer are held."""

    tunnel: Tunnel

    def __init__(self, extending: Extending, exchange: Exchange) -> None:
        self._extending = extending
        self._exchange = exchange
        self._reader = RealtimeReader()
        exchange.reader = self._reader
        self.asking: asyncio.Task[None] | None = None

    def hear(self, text: bytes) -> None:
        """Take a message of the server."""
        if self._reader.hear(text) and (self.asking is None or self.asking.done()):
            self.asking = asyncio.create_task(self._extend())

    async def _extend(self) -> None:
        plan, held = self._exchange.plan, None
        strict = plan is not None and plan.tier.on_exhausted is OnExhausted.STOP
        while held != self._reader.usage:  # more may be told meanwhile
            held = used = self._reader.usage or Usage()
            wanted = Usage(used.input_tokens, used.output_tokens + self._exchange.estimate.output_tokens)
            try:
                extent = await self._extending.hold(self._exchange, wanted, strict=strict)
            except Fault as fault:
                self._exchange.record.detail = fault.internal
                extent = Extent.REFUSED
            if strict and extent is not Extent.EXTENDED:
                self.tunnel.close(POLICY, "insufficient_quota: the limits have no room for more", Outcome.STOPPED)
                return


def _check_joined(tunnel: Tunnel) -> None:
    if not tunnel.joined:
        raise Fault(CLIENT_GONE)
