"""Moments as the commands print and read them."""

from datetime import UTC, datetime

from gateway.cli.bad_input import BadInput


def shown(at: datetime | None, none: str = "-") -> str:
    """`2026-11-21 12:30 UTC`, with seconds where there are any."""
    if at is None:
        return none
    at = at.astimezone(UTC)
    return at.strftime("%Y-%m-%d %H:%M:%S UTC" if at.second else "%Y-%m-%d %H:%M UTC")


def read(text: str | None) -> datetime | None:
    """A day (`2026-12-01`, its first second in UTC) or a moment (`2026-12-01T09:00:00Z`). Raises BadInput."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{text!r} is no moment: write 2026-12-01 or 2026-12-01T09:00:00Z") from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
