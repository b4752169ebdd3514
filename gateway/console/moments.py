"""Times as the console writes them."""

from datetime import UTC, datetime

from gateway.domain.windows import FOREVER_S


def moment(ms: int, precision: str = "seconds") -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def second(moment_s: int | None) -> str | None:
    """RFC 3339, in UTC; None for a moment that there is not, or that never comes."""
    return None if moment_s is None or moment_s >= FOREVER_S else moment(moment_s * 1000)


def at_ms(ms: int) -> datetime:
    """Unix milliseconds as a moment in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def at_s(moment_s: int | None) -> datetime | None:
    """Unix seconds as a moment in UTC; None for one that there is not, or that never comes."""
    return None if moment_s is None or moment_s >= FOREVER_S else datetime.fromtimestamp(moment_s, UTC)


def seconds_of(at: datetime | None) -> int | None:
    """A moment as Unix seconds, rounded down."""
    return None if at is None else int(at.timestamp() // 1)
