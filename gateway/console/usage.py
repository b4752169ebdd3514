"""An account's own usage over HTTP: where its limits stand, what it used, and what a single request cost.

A caller sees the account of its key and no other. Counts come from the limiter, which knows of requests still running
(`used` holds their estimates); where it is silent or has no state, from the ledger, and the answer says so.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.console.gauge_body import gauge_body
from gateway.console.limit_use import used_of
from gateway.console.moments import moment, second
from gateway.console.replies import answer, bearer, fault_answer, parameters
from gateway.console.services import LiveState, Services
from gateway.console.usage_history import MOST_MONTHS, as_of, month_body, month_starts
from gateway.console.usage_period import legacy_body, period_body, period_limit, period_span, standing_body
from gateway.domain.accounts import Caller
from gateway.domain.entitlements import Entitlements, Standing
from gateway.domain.faults import LIMITER_UNAVAILABLE, NOT_FOUND, UNKNOWN_PARAMETER, UNKNOWN_TIER, Fault
from gateway.domain.gauges import LIMITS, Gauge
from gateway.domain.limits import UTC, Limit, Tier, Window
from gateway.domain.metered import scoped
from gateway.domain.usage import UsageEvent
from gateway.domain.windows import FOREVER_S, bounds
from gateway.ledger.usage import Totals

_HOUR_S, _DAY_S = 3_600, 86_400
_MOST_HOURS, _MOST_DAYS = 1_000, 400
_PENDING_RETRY_S = "1"


class UsagePages:
    """The endpoints under `{prefix}/usage`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def own_usage(self, request: Request) -> Response:
        """`GET usage`: limits, totals and what was bought; with `days=N` also the last N days (UTC) with usage, with
        `hours=N` the last N hours by endpoint and model; with `shape=legacy` the billing period alone, under the names
        of older systems.
        """  # noqa: D205
        asked = parameters(request, "days", "hours", "shape")
        days, hours = _number(asked, "days", 0, _MOST_DAYS), _number(asked, "hours", 0, _MOST_HOURS)
        legacy = _legacy(asked)
        caller, live = await self.caller(request)
        now_s, ledger = self._services.now_ms() // 1000, self._services.ledger
        entitled, tier = self.entitled(await ledger.standing(caller.account_id), now_s)
        limits = [await self._limit(entitled, tier, limit, (caller.account_id, now_s, live)) for limit in tier.limits]
        body = {
            "account": caller.account_id,
            "tier": tier.name,
            "at": moment(now_s * 1000),
            "counted_by": "limiter" if live else "ledger",
            "limits": limits,
            "concurrency": {"limit": tier.concurrency, "running": live[1] if live else None},
            "today": await self._today(caller, tier, now_s),
            "month": await self._totals(caller, tier, Window.MONTH, now_s),
            "period": await self._period(caller, entitled, tier, now_s, limits),
            "lifetime": _counts(await ledger.lifetime(caller.account_id)),
            "gauges": [gauge_body(one, tier.numbers) for one in await self._gauges(caller.account_id, tier.numbers)],
            **standing_body(entitled, tier, now_s),
        }
        if days:
            body["days"] = await self._by_day(caller, now_s, days)
        if hours:
            body["hours"] = await self._by_hour(caller, now_s, hours)
        return answer(request, legacy_body(body) if legacy else body)

    async def history(self, request: Request) -> Response:
        """`GET usage/history`: the last `months` (12 unless given) months, oldest first."""
        months = _number(parameters(request, "months"), "months", 12, MOST_MONTHS)
        caller, _ = await self.caller(request)
        now_s, ledger = self._services.now_ms() // 1000, self._services.ledger
        account = await ledger.account(caller.account_id)
        bought = await ledger.subscription_history(caller.account_id)
        starts = month_starts(now_s, months, account.created_ms // 1000)
        days = await ledger.usage_by_day(caller.account_id, starts[0], now_s + 1)
        told: list[dict[str, Any]] = []
        for start_s in starts:
            end_s = bounds(Window.MONTH, start_s, UTC)[1]
            last_s = min(end_s - 1, now_s)
            standing = Standing(account, as_of(bought, last_s * 1000 + 999))
            kind = self._services.entitlements(standing, last_s).effective.kind
            told.append(month_body(start_s, end_s, now_s, days, kind))
        return answer(request, {"account": account.id, "months": told})

    async def event(self, request: Request) -> Response:
        """`GET usage/events/{request_id}`: what one request of the caller's account used.

        The id is the gateway's, or of a request that an app ran by itself the app's own.

        Another account's request and one that never was answer alike: 404. So does one that has ended just now and is
        not in the ledger yet, hence the `retry-after`.
        """
        parameters(request)
        caller, _ = await self.caller(request)
        ledger, request_id = self._services.ledger, request.path_params["request_id"]
        event = await ledger.event(request_id)
        if event is None or event.account_id != caller.account_id:
            event = await ledger.event(scoped(caller.account_id, request_id))
        if event is None:
            unknown = "No usage of such a request of this account. One that has just ended is here within a second."
            return fault_answer(request, Fault(NOT_FOUND, public=unknown), {"retry-after": _PENDING_RETRY_S})
        return answer(request, _event_body(event))

    async def caller(self, request: Request) -> tuple[Caller, LiveState | None]:
        """Who asks, as of the version that the limiter knows, and the account's live state where there is one."""
        directory, token = self._services.directory, bearer(request)
        caller = directory.known(token) or await self._services.guesses.identify(token, request.scope["client"])
        try:
            live = await self._services.peek(caller.account_id)
        except Fault as fault:
            if fault.kind is not LIMITER_UNAVAILABLE:
                raise
            return caller, None
        if live and live[0] > caller.version:
            caller = await directory.identify_anew(caller, token)
        return caller, live

    def entitled(self, standing: Standing, now_s: int) -> tuple[Entitlements, Tier]:
        """What the account may do, and its tier made out for it. Raises Fault(UNKNOWN_TIER)."""
        entitled = self._services.entitlements(standing, now_s)
        if entitled.tier is None:
            raise Fault(UNKNOWN_TIER, f"account {standing.account.id} is on tier {entitled.effective.tier}")
        return entitled, entitled.tier

    async def _gauges(self, account_id: str, numbers: Mapping[str, float]) -> list[Gauge]:
        """The account's gauges, and at 0 those that only have a limit yet."""
        known = {one.name: one for one in await self._services.ledger.gauges_of(account_id)}
        limited = {name.removeprefix(LIMITS): Gauge(name.removeprefix(LIMITS), 0) for name in numbers if LIMITS in name}
        return [gauge for _, gauge in sorted((limited | known).items())]

    async def _limit(
        self, entitled: Entitlements, tier: Tier, limit: Limit, at: tuple[str, int, LiveState | None]
    ) -> dict[str, Any]:
        """One limit of the account `at[0]` at the second `at[1]`, by its live state `at[2]`."""
        account_id, now_s, live = at
        counters = live[2] if live else {}
        used, end_s = await used_of(self._services.ledger, account_id, tier, limit, now_s, counters)
        return {
            "name": limit.name,
            "unit": limit.unit,
            "window": limit.window,
            "used": used,
            "limit": limit.maximum,
            "addons": entitled.addons[limit.name],
            "remaining": max(0, limit.maximum - used),
            "percent": round(used * 100 / limit.maximum, 1) if limit.maximum else 100.0,
            "resets_at": second(end_s),
            "reset_s": None if end_s >= FOREVER_S else end_s - now_s,
            "remedy": limit.remedy,
        }

    async def _period(
        self, caller: Caller, entitled: Entitlements, tier: Tier, now_s: int, limits: list[dict[str, Any]]
    ) -> dict[str, Any]:
        limit, running = period_limit(tier), period_span(entitled, tier, now_s)
        if limit is None:
            used = (await self._services.ledger.totals(caller.account_id, *running)).tokens
        else:
            used = next(told["used"] for told in limits if told["name"] == limit.name)
        return period_body(entitled, tier, running, used)

    async def _today(self, caller: Caller, tier: Tier, now_s: int) -> dict[str, Any]:
        """The running day, with its limit on tokens, its end, and when the account was last served."""
        totals = await self._totals(caller, tier, Window.DAY, now_s)
        latest = await self._services.ledger.recent_events(caller.account_id, 1)
        by_name = {limit.name: limit.maximum for limit in tier.limits}
        return totals | {
            "limit": by_name.get("tokens/day"),
            "resets_at": second(bounds(Window.DAY, now_s, tier.time_zone)[1]),
            "last_update": moment(latest[0].settled_ms) if latest else None,
        }

    async def _totals(self, caller: Caller, tier: Tier, window: Window, now_s: int) -> dict[str, Any]:
        start_s, end_s = bounds(window, now_s, tier.time_zone)
        totals = await self._services.ledger.totals(caller.account_id, start_s, end_s)
        return {"from": moment(start_s * 1000), **_counts(totals)}

    async def _by_day(self, caller: Caller, now_s: int, days: int) -> list[dict[str, Any]]:
        tomorrow_s = now_s - now_s % _DAY_S + _DAY_S
        found = await self._services.ledger.usage_by_day(caller.account_id, tomorrow_s - days * _DAY_S, tomorrow_s)
        return [{"date": moment(day.day_s * 1000)[:10], **_counts(day.totals)} for day in found]

    async def _by_hour(self, caller: Caller, now_s: int, hours: int) -> list[dict[str, Any]]:
        next_s = now_s - now_s % _HOUR_S + _HOUR_S
        found = await self._services.ledger.usage_by_hour(caller.account_id, next_s - hours * _HOUR_S, next_s)
        return [
            {"hour": second(one.hour_s), "endpoint": one.endpoint, "model": one.model or None, **_counts(one.totals)}
            for one in found
        ]


def _number(asked: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = asked.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= most):
        raise Fault(UNKNOWN_PARAMETER, public=f"`{name}` is a whole number from 1 to {most}.")
    return int(text)


def _legacy(asked: Mapping[str, str]) -> bool:
    if asked.get("shape", "legacy") != "legacy":
        raise Fault(UNKNOWN_PARAMETER, public="`shape` is legacy, or left out.")
    return "shape" in asked


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
        "admitted_at": moment(admitted_ms, "milliseconds"),
        "settled_at": moment(settled_ms, "milliseconds"),
        **fields,
        "tokens": event.input_tokens + event.output_tokens,
    }
