"""Tiers and the rules of subscriptions as they stand in gateway.yaml, made into the domain's own."""

from collections.abc import Mapping
from zoneinfo import ZoneInfo

from gateway.domain.app_ids import AppIds
from gateway.domain.entitlements import usual_remedy
from gateway.domain.gates import Gate
from gateway.domain.limits import Limit, Remedy, Tier, Unit, WhenUnavailable, Window
from gateway.domain.models import ANY_MODEL, Caps, ModelRules
from gateway.domain.schedules import Schedule
from gateway.domain.subscriptions import DEFAULT_ACCESS, Rules
from gateway.settings.metering import AppIdSettings
from gateway.settings.model import Route, Settings
from gateway.settings.plans import LimitSettings, ScheduleSettings, TierSettings
from gateway.settings.upstreams import ModelSettings


def tier_of(name: str, settings: TierSettings) -> Tier:
    """The domain's tier; limits in the file's order. A limit that doesn't say is mended as `usual_remedy` says.

    What has to be paid for isn't given away uncounted: a tier with such a limit is denied while nobody can check it.
    """
    limits = tuple(
        _limit(unit, window, asked) for unit, windows in settings.limits.items() for window, asked in windows.items()
    )
    paid = any(limit.remedy is Remedy.PAY for limit in limits)
    return Tier(
        name,
        limits,
        settings.concurrency,
        ZoneInfo(settings.time_zone),
        settings.numbers,
        settings.features,
        on_exhausted=settings.on_exhausted,
        on_disconnect=settings.on_disconnect,
        when_unavailable=settings.when_unavailable or (WhenUnavailable.DENY if paid else WhenUnavailable.ALLOW),
        bandwidth_bit_s=(settings.bandwidth_mbit_s or 0) * 1e6,
        models=models_of(settings.models),
        caps=Caps((settings.max_body_mb or 0) << 20, settings.max_tokens or 0, settings.max_context_tokens or 0),
        schedules={name: _schedule(schedule) for name, schedule in settings.schedules.items()},
    )


def tiers_of(settings: Settings) -> dict[str, Tier]:
    """Every tier of the settings, by name."""
    return {name: tier_of(name, tier) for name, tier in settings.tiers.items()}


def rules_of(settings: Settings) -> Rules:
    """What each status of a subscription gives."""
    asked = settings.subscriptions
    return Rules({**DEFAULT_ACCESS, **asked.statuses}, asked.grace_days * 86_400, asked.fallback_tier)


def app_ids_of(asked: AppIdSettings) -> AppIds | None:
    """Where apps name their conversations; None where nowhere."""
    places = AppIds(asked.conversation_header.encode(), asked.message_header.encode(), asked.metadata)
    return None if places == AppIds() else places


def models_of(settings: ModelSettings | None) -> ModelRules:
    """The models of a tier or a route."""
    return ANY_MODEL if settings is None else ModelRules(settings.allow, settings.aliases)


def gate_of(route: Route, tiers: Mapping[str, Tier]) -> Gate | None:
    """What the route asks of its callers' tiers; None where it asks nothing."""
    if not (route.tiers or route.needs or route.schedule):
        return None
    return Gate(route.path, tiers, frozenset(route.tiers), route.needs or "", route.schedule or "")


def _schedule(asked: ScheduleSettings) -> Schedule:
    seconds = sorted({int(time[:2]) * 3600 + int(time[3:]) * 60 for time in asked.at})
    return Schedule(tuple(seconds), asked.open_minutes * 60, asked.on_request)


def _limit(unit: Unit, window: Window, asked: int | LimitSettings) -> Limit:
    if isinstance(asked, LimitSettings):
        return Limit(unit, window, asked.maximum, asked.remedy or usual_remedy(window))
    return Limit(unit, window, asked, usual_remedy(window))
