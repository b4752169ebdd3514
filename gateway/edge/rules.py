"""Puts a tier's and a route's rules on models and sizes to a request: aliases now, the rest once admission knows the
tier for sure (`domain/model_gate.py`). Only where the settings hold such rules.
"""  # noqa: D205

from collections.abc import AsyncIterator

from gateway.domain.accounts import Caller
from gateway.domain.faults import BODY_TOO_LARGE, Fault
from gateway.domain.limits import Tier
from gateway.domain.model_gate import Asked, ModelGate
from gateway.edge.exchange import Exchange
from gateway.edge.request_body import announced_bytes
from gateway.metering.ratio import Ratios
from gateway.snapshot import Plan, Route, Snapshot

Body = bytes | AsyncIterator[bytes]

BOUNDED = frozenset({"openai", "openai-responses", "anthropic", "gemini"})
"""Dialects in which a caller can say how many tokens an answer may have."""


def rule(
    snapshot: Snapshot, ratios: Ratios, exchange: Exchange, route: Route, caller: Caller, path: bytes, body: Body
) -> tuple[bytes, Body]:
    """Path and body as they go on: with the model's own name in place of an alias. Raises Fault(INVALID_BODY)."""
    plan: Plan | None = caller.plan or snapshot.plans.get(caller.tier)
    tier = None if plan is None else plan.tier
    if not isinstance(body, bytes):
        size = announced_bytes(exchange.scope["headers"])
        exchange.gate = _gate(snapshot, route, Asked("", False, size or 0, 0, None, False))
        most = 0 if tier is None else tier.caps.body_bytes
        return path, _bounded(body, most) if size is None and most else body
    ask = route.dialect.read_request(body, path)
    model = _meant(ask.model, tier, route)
    if model != ask.model:
        path, body = route.dialect.with_model(path, body, model)
        exchange.alias = ask.model
    asked = Asked(
        model,
        route.reads_body and bool(body),
        len(body),
        ratios.tokens(model, ask.prompt_bytes),
        ask.max_output,
        route.dialect.name in BOUNDED and not body.startswith(b"--"),
    )
    exchange.gate = _gate(snapshot, route, asked)
    return path, body


def rule_handshake(snapshot: Snapshot, exchange: Exchange, route: Route, caller: Caller, query: bytes) -> bytes:
    """The query of a metered WebSocket's handshake, as `rule`; its record has the model's own name."""
    plan: Plan | None = caller.plan or snapshot.plans.get(caller.tier)
    named = exchange.record.model
    model = exchange.record.model = _meant(named, None if plan is None else plan.tier, route)
    exchange.gate = _gate(snapshot, route, Asked(model, True, 0, 0, None, False))
    if model == named:
        return query
    exchange.alias = named
    return route.dialect.with_model(b"?" + query, b"", model)[0][1:]


def _gate(snapshot: Snapshot, route: Route, asked: Asked) -> ModelGate:
    return ModelGate(route.gate, route.models, snapshot.tiers, asked)


def _meant(model: str, tier: Tier | None, route: Route) -> str:
    """The model behind a name: the tier's alias counts before the route's. An alias of an alias is none."""
    if tier is not None and model in tier.models.aliases:
        return tier.models.aliases[model]
    return route.models.aliases.get(model, model)


async def _bounded(body: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """A body of unknown length up to `most` bytes. Raises Fault(BODY_TOO_LARGE)."""
    size = 0
    async for piece in body:
        size += len(piece)
        if size > most:
            raise Fault(BODY_TOO_LARGE, public=f"The request body is larger than the {most} bytes that the tier takes.")
        yield piece
