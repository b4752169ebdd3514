"""A gauge as the console tells it."""

from collections.abc import Mapping
from typing import Any

from gateway.domain.gauges import Gauge, as_number, limit_milli


def gauge_body(gauge: Gauge, numbers: Mapping[str, float]) -> dict[str, Any]:
    """A level, its limit among an account's `numbers`, and how much of it is used. A gauge is never reset."""
    used, limit = gauge.value_milli, limit_milli(gauge.name, numbers)
    percent = None if limit is None else round(used * 100 / limit, 1) if limit else 100.0
    return {
        "name": gauge.name,
        "used": as_number(used),
        "limit": None if limit is None else as_number(limit),
        "remaining": None if limit is None else as_number(max(0, limit - used)),
        "percent": percent,
        "resets_at": None,
    }
