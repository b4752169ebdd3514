"""Who did what to which account. Pure values."""

import msgspec


class Actor(msgspec.Struct, frozen=True, gc=False):
    """Who changes something (`admin`, `cli:ann`, `stripe`, `system`), and what made them (`evt_…`, a request)."""

    who: str
    source: str = ""


SYSTEM = Actor("system")
"""The gateway itself."""


class AuditRow(msgspec.Struct, frozen=True):
    """One change of one account. `before` and `after` are JSON texts of what was changed, None where nothing stood."""

    row_id: int
    at_ms: int
    who: str
    source: str
    action: str
    account_id: str
    before: str | None
    after: str | None
