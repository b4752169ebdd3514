"""Reads how long an upstream asks to be left alone: `Retry-After` (RFC 9110 §10.2.3), `retry-after-ms`."""

import re
from email.utils import parsedate_to_datetime

from gateway.upstream.transport import RawHeaders

_NUMBER = re.compile(rb"\d{1,9}(\.\d{1,9})?")


def retry_after_s(headers: RawHeaders, now_s: float) -> float | None:
    """Seconds from `now_s` (Unix), at least 0; None where the answer doesn't say, or not so that it can be read."""
    told: float | None = None
    for name, value in headers:
        if name == b"retry-after-ms" and _NUMBER.fullmatch(value):
            return float(value) / 1000
        if name == b"retry-after":
            told = float(value) if _NUMBER.fullmatch(value) else _until(value, now_s)
    return told


def _until(date: bytes, now_s: float) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date.decode("ascii")).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None
