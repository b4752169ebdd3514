"""A tier as it stands in gateway.yaml, made into the domain's own."""

from zoneinfo import ZoneInfo

from gateway.domain.limits import Limit, Remedy, Tier, Unit, Window
from gateway.settings.model import LimitSettings, TierSettings


def tier_of(name: str, settings: TierSettings) -> Tier:
    """The domain's tier; limits in the file's order. A month's limit is mended by paying, any other by waiting."""
    limits = tuple(
        _limit(unit, window, asked) for unit, windows in settings.limits.items() for window, asked in windows.items()
    )
    return Tier(name, limits, settings.concurrency, ZoneInfo(settings.time_zone))


def _limit(unit: Unit, window: Window, asked: int | LimitSettings) -> Limit:
    usual = Remedy.PAY if window is Window.MONTH else Remedy.WAIT
    if isinstance(asked, LimitSettings):
        return Limit(unit, window, asked.maximum, asked.remedy or usual)
    return Limit(unit, window, asked, usual)
