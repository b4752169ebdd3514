"""A WebSocket's own way: identify, reserve, shake hands with the upstream, join, settle.

Promises: the caller's credential never goes upstream, in whichever of the four places a client puts it; one request and
one running slot are held while it is open. On a metered route the usage that the server tells is charged as it comes:
one hold, extended ahead of each answer; one event, at the end. Fails with Fault as any request does.
"""

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import parse_qsl

from gateway.dialects.openai_realtime import OpenAIRealtime, RealtimeReader
from gateway.domain.decisions import Extent, Refused
from gateway.domain.faults import CLIENT_GONE, INVALID_HEADER, MISSING_KEY, UPSTREAM_DENIED, Fault
from gateway.domain.limits import OnExhausted
from gateway.domain.usage import CountedBy, Outcome, Usage
from gateway.edge.admission import Admission
from gateway.edge.bandwidth import Bandwidth
from gateway.edge.exchange import Exchange
from gateway.edge.extending import Extending
from gateway.edge.headers import forwarded, returned, token_of
from gateway.edge.http_response_head import switching_head
from gateway.edge.key_scope import check_scope
from gateway.edge.query_key import key_in, without_key
from gateway.edge.relay import NO_CREDENTIAL, Relay, outcome_of
from gateway.edge.reply import send_refusal, send_whole, state_headers
from gateway.edge.settling import Settling
from gateway.edge.tunnel import POLICY, Tunnel
from gateway.identity.directory import Directory
from gateway.identity.guesses import Guesses
from gateway.snapshot import Route
from gateway.upstream.transport import RawHeaders
from gateway.upstream.tunnel import SWITCHING, Opened, Tunnels

SUBPROTOCOLS = b"sec-websocket-protocol"
EXTENSIONS = b"sec-websocket-extensions"
KEY_MARK = b"openai-insecure-api-key."
"""Browsers can set no header, so OpenAI takes the key as the name of a subprotocol."""


@dataclass(frozen=True, slots=True)
class WebSockets:
    """Those of this worker. `idle_s` 0 is for ever; `most_bytes` bounds one message of a metered route."""

    directory: Directory
    guesses: Guesses
    admission: Admission
    extending: Extending
    relay: Relay
    settling: Settling
    bandwidth: Bandwidth
    idle_s: float
    most_bytes: int

    async def serve(self, exchange: Exchange, route: Route, path: bytes) -> None:
        """From the client's handshake to the end."""
        tunnels, metered = route.target.tunnels, isinstance(route.dialect, OpenAIRealtime)
        if tunnels is None or (route.reads_body and not metered):
            raise Fault(INVALID_HEADER, public="This route takes no WebSocket.")
        exchange.watched = True
        headers = exchange.scope["headers"]
        token = token_of(headers) or key_in(exchange.scope["query_string"]) or _offered_key(headers)
        if token is None:
            raise Fault(MISSING_KEY)
        caller = self.directory.known(token) or await self.guesses.identify(token, exchange.scope["client"])
        record = exchange.record
        record.account_id, record.key_id = caller.account_id, caller.key_id
        record.model = _model_of(exchange)
        if metered:
            exchange.estimate = Usage(0, route.default_max_tokens)
            record.estimated_tokens = exchange.estimate.tokens
        if caller.scope is not None:
            check_scope(caller.scope, path, record.model)
        decision = await self.admission.admit(exchange, caller, token, exchange.estimate)
        if isinstance(decision, Refused):
            return await send_refusal(exchange, decision)
        opened = await self._open(exchange, route, path, tunnels)
        if opened.status != SWITCHING:
            return await self._refused(exchange, route, opened)
        return await self._join(exchange, route, opened)

    async def _open(self, exchange: Exchange, route: Route, path: bytes, tunnels: Tunnels) -> Opened:
        scope = exchange.scope
        headers = forwarded(scope["headers"], route.target, exchange.request_id.encode(), plain_answer=False)
        headers = _without_key(headers, readable=route.reads_body)
        query = without_key(scope["query_string"])
        opened = await tunnels.open(path + b"?" + query if query else path, headers)
        exchange.record.forwarded_s = time.perf_counter()
        exchange.record.upstream_status = opened.status
        return opened

    async def _refused(self, exchange: Exchange, route: Route, opened: Opened) -> None:
        """The upstream wants none of it: what it says goes to the client."""
        if opened.status in NO_CREDENTIAL and route.target.credential is not None:
            raise Fault(UPSTREAM_DENIED, f"upstream {route.target.name} answered {opened.status}")
        outcome, requests = outcome_of(opened.status)
        self.settling.settle(exchange, Usage(), CountedBy.ESTIMATE, outcome, requests)
        headers = [*returned(opened.headers, route.target), *state_headers(exchange)]
        await send_whole(exchange, opened.status, headers, opened.body)

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
        head = switching_head([*returned(opened.headers, route.target), *state_headers(exchange)])
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


def _offered(headers: RawHeaders) -> list[bytes]:
    return [one.strip() for name, value in headers if name == SUBPROTOCOLS for one in value.split(b",")]


def _offered_key(headers: RawHeaders) -> bytes | None:
    keys = [one.removeprefix(KEY_MARK) for one in _offered(headers) if one.startswith(KEY_MARK)]
    return keys[0] if keys else None


def _without_key(headers: RawHeaders, *, readable: bool) -> RawHeaders:
    """The handshake's fields without a key among the subprotocols; `readable` frames are asked for uncompressed."""
    kept = [one for one in _offered(headers) if not one.startswith(KEY_MARK)]
    out = [field for field in headers if field[0] != SUBPROTOCOLS and not (readable and field[0] == EXTENSIONS)]
    return [*out, (SUBPROTOCOLS, b", ".join(kept))] if kept else out


def _model_of(exchange: Exchange) -> str:
    query: bytes = exchange.scope["query_string"]
    return dict(parse_qsl(query.decode("latin-1"))).get("model", "")
