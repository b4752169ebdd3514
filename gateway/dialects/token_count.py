"""A count of tokens from whatever stands in its place. Pure; never raises."""

from typing import Any

MOST = 1 << 40
"""More than this is no count: sums stay exact in the limiter (2^53)."""


def count(value: Any) -> int:
    """The count, 0 where there is none: null, a negative or broken number, another type."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 17:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST else 0
