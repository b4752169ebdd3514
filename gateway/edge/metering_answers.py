"""The answers of the metering API: one shape for what is held, one for what has ended; limit state in the head."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.domain.limits import OWNER, SINCE
from gateway.domain.metered import own_id_of
from gateway.domain.usage import Outcome, UsageEvent
from gateway.edge.exchange import Exchange
from gateway.edge.reply import JSON, send_whole, state_headers

_UNCACHED = (b"cache-control", b"no-store")


def held_body(request_id: str, held: Iterable[tuple[str, int]], lease_ends_ms: int) -> dict[str, Any]:
    """A request that is under way: what is held of each of the account's limits."""
    return {
        "request_id": own_id_of(request_id),
        "state": "held",
        "held": {name.partition(SINCE)[0]: amount for name, amount in held if OWNER not in name},
        "lease_ends_at": _moment(lease_ends_ms),
    }


def ended_body(event: UsageEvent) -> dict[str, Any]:
    """A request that has ended: what is charged for it."""
    return {
        "request_id": own_id_of(event.request_id),
        "state": "released" if event.outcome is Outcome.RELEASED else "settled",
        "model": event.model,
        "outcome": event.outcome,
        "counted_by": event.counted_by,
        "requests": event.requests,
        "input_tokens": event.input_tokens,
        "output_tokens": event.output_tokens,
        "cached_tokens": event.cached_tokens,
        "reasoning_tokens": event.reasoning_tokens,
        "tokens": event.input_tokens + event.output_tokens,
    }


async def send_answer(exchange: Exchange, body: dict[str, Any]) -> None:
    """Send a body with status 200."""
    exchange.record.outcome = exchange.record.outcome or Outcome.OK.value
    await send_whole(exchange, 200, [JSON, _UNCACHED, *state_headers(exchange)], msgspec.json.encode(body))


def _moment(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
