"""Sends a request to one target after another until one answers: the way forward where a route has a choice.

Promises: attempts of one request share its hold and its event; nothing is sent again once a byte of an answer went to
the caller, nor what an upstream may have processed, unless the settings ask for it (RFC 9110 §9.2.2); usage that a
dropped answer reported is charged; when all fail the caller reads what the last upstream said.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import msgspec

from gateway.domain.faults import UPSTREAM_BROKEN, UPSTREAM_REFUSED, UPSTREAM_TIMEOUT, Fault
from gateway.domain.usage import Usage
from gateway.edge.exchange import Exchange
from gateway.edge.headers import forwarded
from gateway.edge.request_body import length_of
from gateway.snapshot import Route
from gateway.upstream.choice import Choice, Member, Upstream
from gateway.upstream.retry_after import retry_after_s
from gateway.upstream.target import Target
from gateway.upstream.transport import Answer, RawHeaders, Unsent

Body = bytes | AsyncIterator[bytes]

LATER = frozenset({429, 503, 529})
"""The upstream says itself that it didn't process the request (529: Anthropic's "overloaded")."""

OF_THE_REQUEST = frozenset({501, 505})
"""Errors of the 5xx kind that say nothing of the target's health."""

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

ILL = (UPSTREAM_REFUSED, UPSTREAM_TIMEOUT, UPSTREAM_BROKEN)

_KEPT_BYTES = 65_536
_KEEP_S = 1.0


class Attempts(msgspec.Struct, eq=False):
    """The attempts of one request.

    `path` is with its query, `body` what goes upstream; `model` is what a request without an `Ask` asks for.
    """

    exchange: Exchange
    route: Route
    choice: Choice
    path: bytes
    body: Body
    until_s: float
    model: str = ""
    tried: list[Member] = []
    kept: "_Kept | None" = None
    fault: Fault | None = None

    async def answer(self) -> Answer:
        """The answer to relay. Raises Fault, UPSTREAM_DOWN and UPSTREAM_RATE_LIMITED among others."""
        try:
            while picked := self._next():
                answer = await self._attempt(*picked)
                if answer is not None:
                    return answer
            kept, self.kept = self.kept, None
        finally:
            self._charge_dropped()
        if kept is not None:
            self._tell(kept.upstream, kept.member)
            return kept
        raise self.fault or self.choice.unavailable(time.monotonic())

    def _next(self) -> tuple[Upstream, Member] | None:
        return self.choice.pick(self.tried) if self._may_go_on() else None

    def _may_go_on(self) -> bool:
        return not self.tried or (len(self.tried) < self.choice.retry.max_attempts and time.monotonic() < self.until_s)

    async def _attempt(self, upstream: Upstream, member: Member) -> Answer | None:
        """Its answer, to be passed on; None where the request may be sent elsewhere."""
        self.tried.append(member)
        probe = member.health.begin()
        member.running += 1
        passed_on = False
        try:
            try:
                answer = await self._send(upstream, member)
            except Fault as fault:
                self._failed(upstream, member, fault, probe=probe)
                return None
            except BaseException:
                member.health.abandon(probe=probe)
                raise
            self._judge(upstream, member, answer, probe=probe)
            if self._may_repeat(member, answer.status) and self._may_go_on() and self.choice.has_more(self.tried):
                await self._keep(upstream, member, answer)
                return None
            passed_on = True
            return _Counted(answer, member)
        finally:
            if not passed_on:
                member.running -= 1

    def _send(self, upstream: Upstream, member: Member) -> Awaitable[Answer]:
        exchange, path, body = self.exchange, self.path, self.body
        if self._tell(upstream, member) and isinstance(body, bytes):
            path, body = exchange.dialect.with_model(path, body, exchange.record.model)
        return self.deliver(member.target, path, body)

    def deliver(self, target: Target, path: bytes, body: Body) -> Awaitable[Answer]:
        """Send it to this one. Raises Fault, now or when awaited."""
        exchange = self.exchange
        scope, request_id = exchange.scope, exchange.request_id.encode()
        headers = forwarded(scope["headers"], target, request_id, plain_answer=self.route.reads_body)
        length = length_of(exchange, body)
        return target.transport.send(scope["method"].encode(), path, headers, body, length)

    def denies(self, target: Target, status: int) -> bool:
        """Whether an answer of this status refuses the credential that the request was sent with."""
        return target.denies(status)

    def _tell(self, upstream: Upstream, member: Member) -> bool:
        """Note where the request went, and as which model; whether that is another one than was asked for."""
        record, ask = self.exchange.record, self.exchange.ask
        self.exchange.target = member.target
        record.upstream, record.target, record.attempts = upstream.name, member.label, len(self.tried)
        model = self.model if ask is None else ask.model
        record.model = upstream.models.get(model, model)
        return record.model != model

    def _failed(self, upstream: Upstream, member: Member, fault: Fault, *, probe: bool) -> None:
        """There was no answer: raise, or go on where that doubles nothing."""
        if fault.kind in ILL:
            member.health.fail(fault.internal, probe=probe)
            self.choice.count(upstream.name, member.label, "failed")
        else:
            member.health.abandon(probe=probe)
        if isinstance(fault, Unsent) or (fault.kind in ILL and self._is_repeatable()):
            self.fault = fault
            return
        raise fault

    def _is_repeatable(self) -> bool:
        """Whether what may have been processed may be sent again."""
        safe = self.choice.retry.unsafe or self.exchange.scope["method"] in IDEMPOTENT
        return safe and isinstance(self.body, bytes)

    def _may_repeat(self, member: Member, status: int) -> bool:
        """Whether this answer is one to ask another target after."""
        if status in LATER or self.denies(member.target, status):
            return isinstance(self.body, bytes)
        return status >= 500 and status not in OF_THE_REQUEST and self._is_repeatable()

    def _judge(self, upstream: Upstream, member: Member, answer: Answer, *, probe: bool) -> None:
        """What an answer's status says of its target."""
        health, status, end = member.health, answer.status, "ok"
        if status == 429:
            health.succeed(probe=probe)
            health.rest(retry_after_s(answer.headers, time.time()), "answered 429")
            end = "limited"
        elif self.denies(member.target, status):
            health.fail(f"answered {status} to its api_key", probe=probe)
            end = "failed"
        elif status >= 500 and status not in OF_THE_REQUEST:
            health.fail(f"answered {status}", probe=probe)
            end = "failed"
        else:
            health.succeed(probe=probe)
        self.choice.count(upstream.name, member.label, end)

    async def _keep(self, upstream: Upstream, member: Member, answer: Answer) -> None:
        """Put an answer aside that another may take the place of; what it can't be read of in a moment is let go."""
        self._charge_dropped()
        body = None
        try:
            with suppress(Fault, TimeoutError):
                async with asyncio.timeout(_KEEP_S):
                    body = await answer.read_all(_KEPT_BYTES)
        finally:
            answer.close()
        if body is not None:
            self.kept = _Kept(answer.status, answer.headers, body, upstream, member)

    def _charge_dropped(self) -> None:
        """An answer that was put aside won't be the one that is relayed: what it reported is charged beside that."""
        kept, self.kept = self.kept, None
        usage = None if kept is None else self.exchange.dialect.read_usage(kept.body)
        if usage is not None:
            self.exchange.earlier = (self.exchange.earlier or Usage()).plus(usage)


class _Counted:
    """An answer that is part of its target's load until it is closed."""

    __slots__ = ("_answer", "_member", "headers", "read", "read_all", "status")

    def __init__(self, answer: Answer, member: Member) -> None:
        self.status, self.headers = answer.status, answer.headers
        # The answer's own methods: no frame more for each chunk.
        self.read: Callable[[], Coroutine[Any, Any, bytes]] = answer.read
        self.read_all: Callable[[int], Coroutine[Any, Any, bytes | None]] = answer.read_all
        self._answer = answer
        self._member: Member | None = member

    def close(self) -> None:
        """See `transport.Answer`."""
        member, self._member = self._member, None
        if member is not None:
            member.running -= 1
        self._answer.close()


class _Kept(msgspec.Struct, eq=False):
    """An answer that was read to its end and put aside."""

    status: int
    headers: RawHeaders
    body: bytes
    upstream: Upstream
    member: Member
    was_read: bool = False

    async def read(self) -> bytes:
        """See `transport.Answer`."""
        if self.was_read:
            return b""
        self.was_read = True
        return self.body

    async def read_all(self, at_most: int) -> bytes | None:
        """See `transport.Answer`."""
        return None if len(self.body) > at_most else await self.read()

    def close(self) -> None:
        """See `transport.Answer`."""
