"""An account's own usage over HTTP: where its limits stand, what it used, and what a single request cost.

A caller sees the account of its key and no other. Counts come from the limiter, which knows of requests still running
(`used` holds their estimates); where it is silent or has no state, from the ledger, and the answer says so.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.console.replies import answer, bearer, fault_answer, parameters
from gateway.console.services import LiveState, Services
from gateway.domain.accounts import Caller
from gateway.domain.faults import LIMITER_UNAVAILABLE, NOT_FOUND, UNKNOWN_PARAMETER, UNKNOWN_TIER, Fault
from gateway.domain.limits import Limit, Tier, Window
from gateway.domain.usage import Usage, UsageEvent, amount
from gateway.domain.windows import bounds, span
from gateway.ledger.usage import Totals

_DAY_S = 86_400
_MOST_DAYS = 400
_PENDING_RETRY_S = "1"


class UsagePages:
    """The endpoints under `{prefix}/usage`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def own_usage(self, request: Request) -> Response:
        """`GET usage`: limits and totals; with `days=N` also the last N days (UTC) that saw usage."""
        days = _days(parameters(request, "days").get("days"))
        caller, live = await self._caller(bearer(request))
        now_s = self._services.now_ms() // 1000
        standing = await self._services.ledger.standing(caller.account_id)
        entitled = self._services.entitlements(standing, now_s)
        tier = entitled.tier
        if tier is None:
            raise Fault(UNKNOWN_TIER, f"account {caller.account_id} is on tier {entitled.effective.tier}")
        body = {
            "account": caller.account_id,
            "tier": tier.name,
            "at": _moment(now_s * 1000),
            "counted_by": "limiter" if live else "ledger",
            "limits": [await self._limit(caller, tier, limit, now_s, live) for limit in tier.limits],
            "concurrency": {"limit": tier.concurrency, "running": live[1] if live else None},
            "today": await self._totals(caller, tier, Window.DAY, now_s),
            "month": await self._totals(caller, tier, Window.MONTH, now_s),
        }
        if days:
            body["days"] = await self._by_day(caller, now_s, days)
        return answer(request, body)

    async def event(self, request: Request) -> Response:
        """`GET usage/events/{request_id}`: what one request of the caller's account used.

        Another account's request and one that never was answer alike: 404. So does one that has ended just now and is
        not in the ledger yet, hence the `retry-after`.
        """
        parameters(request)
        caller, _ = await self._caller(bearer(request))
        event = await self._services.ledger.event(request.path_params["request_id"])
        if event is None or event.account_id != caller.account_id:
            unknown = "No usage of such a request of this account. One that has just ended is here within a second."
            return fault_answer(request, Fault(NOT_FOUND, public=unknown), {"retry-after": _PENDING_RETRY_S})
        return answer(request, _event_body(event))

    async def _caller(self, token: bytes) -> tuple[Caller, LiveState | None]:
        """Who asks, as of the version that the limiter knows, and the account's live state where there is one."""
        directory = self._services.directory
        caller = directory.known(token) or await directory.identify(token)
        try:
            live = await self._services.peek(caller.account_id)
        except Fault as fault:
            if fault.kind is not LIMITER_UNAVAILABLE:
                raise
            return caller, None
        if live and live[0] > caller.version:
            directory.forget(caller.account_id)
            caller = await directory.identify(token)
        return caller, live

    async def _limit(
        self, caller: Caller, tier: Tier, limit: Limit, now_s: int, live: LiveState | None
    ) -> dict[str, Any]:
        counter, start_s, end_s = span(tier, limit, now_s)
        if live and counter in live[2]:
            counted_from_s, used = live[2][counter]
            used = used if counted_from_s >= start_s else 0
        else:
            totals = await self._services.ledger.totals(caller.account_id, start_s, end_s)
            used = amount(limit.unit, totals.requests, Usage(totals.input_tokens, totals.output_tokens))
        return {
            "name": limit.name,
            "unit": limit.unit,
            "window": limit.window,
            "used": used,
            "limit": limit.maximum,
            "remaining": max(0, limit.maximum - used),
            "percent": round(used * 100 / limit.maximum, 1) if limit.maximum else 100.0,
            "resets_at": _moment(end_s * 1000),
            "reset_s": end_s - now_s,
            "remedy": limit.remedy,
        }

    async def _totals(self, caller: Caller, tier: Tier, window: Window, now_s: int) -> dict[str, Any]:
        start_s, end_s = bounds(window, now_s, tier.time_zone)
        totals = await self._services.ledger.totals(caller.account_id, start_s, end_s)
        return {"from": _moment(start_s * 1000), **_counts(totals)}

    async def _by_day(self, caller: Caller, now_s: int, days: int) -> list[dict[str, Any]]:
        tomorrow_s = now_s - now_s % _DAY_S + _DAY_S
        found = await self._services.ledger.usage_by_day(caller.account_id, tomorrow_s - days * _DAY_S, tomorrow_s)
        return [{"date": _moment(day.day_s * 1000)[:10], **_counts(day.totals)} for day in found]


def _days(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= _MOST_DAYS):
        raise Fault(UNKNOWN_PARAMETER, public=f"`days` is a whole number from 1 to {_MOST_DAYS}.")
    return int(text)


def _counts(totals: Totals) -> dict[str, int]:
    return {
        "requests": totals.requests,
        "tokens": totals.tokens,
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "cached_tokens": totals.cached_tokens,
        "reasoning_tokens": totals.reasoning_tokens,
    }


def _event_body(event: UsageEvent) -> dict[str, Any]:
    fields = msgspec.structs.asdict(event)
    admitted_ms, settled_ms = fields.pop("admitted_ms"), fields.pop("settled_ms")
    return {
        "request_id": fields.pop("request_id"),
        "account": fields.pop("account_id"),
        "admitted_at": _moment(admitted_ms, "milliseconds"),
        "settled_at": _moment(settled_ms, "milliseconds"),
        **fields,
        "tokens": event.input_tokens + event.output_tokens,
    }


def _moment(ms: int, precision: str = "seconds") -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec=precision).replace("+00:00", "Z")
