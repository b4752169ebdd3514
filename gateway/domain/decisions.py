"""The decision on a request: what is asked of the limiter and what it answers. Values, never exceptions.

`judge` is the one place where a refusal is worked out from counters; the Lua script only says that some line failed.
"""

from collections.abc import Mapping
from enum import IntEnum

import msgspec

from gateway.domain.limits import SINCE, SLOTS, Remedy
from gateway.domain.usage import UsageEvent


class Line(msgspec.Struct, frozen=True, gc=False):
    """One limit as it bears on one request: the window's bounds (Unix seconds), its maximum, and the amount asked.

    `name` is that of its counter: the limit's own, or that and the window's start (`windows.span`).
    """

    name: str
    start_s: int
    end_s: int
    maximum: int
    amount: int
    remedy: Remedy = Remedy.WAIT


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """What `reserve` is asked: all lines of one request, and a running slot, or nothing.

    `request_id` makes it idempotent; `version` is that of the entitlements the gateway knows; `concurrency` -1 is
    unbounded; `lease_ms` is how long the hold lives without a sign of life, `about` the event to be written if it then
    is reaped. Without one, nothing is written and what was held stays charged.
    """

    request_id: str
    account_id: str
    version: int
    lines: tuple[Line, ...]
    concurrency: int = -1
    lease_ms: int = 60_000
    about: UsageEvent | None = None


class Renewal(msgspec.Struct, frozen=True, gc=False):
    """A sign of life: from now on the hold has `lease_ms` again, and what was counted so far stands in `about`."""

    request_id: str
    account_id: str
    lease_ms: int
    about: UsageEvent


class Extension(msgspec.Struct, frozen=True, gc=False):
    """What `extend` is asked for a request that runs: of each of `lines`, hold `amount` in all from now on.

    The amount is the whole, not what is added, so that asking twice holds nothing twice.
    """

    request_id: str
    account_id: str
    lines: tuple[Line, ...]


class Extent(IntEnum):
    """What became of an extension."""

    REFUSED = 0
    """Some line has no room for what is missing; nothing was taken."""
    EXTENDED = 1
    """All is held."""
    GONE = 2
    """There is no hold: it was settled or reaped, or the limiter lost it."""
    MISSING = 3
    """The limiter holds no state of this account: hydrate it from the ledger and ask again."""


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """Every line fits and is held. `used` is each line's count with this hold in it, in the order asked."""

    now_ms: int
    used: tuple[int, ...]
    running: int


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Some line does not fit; nothing was taken.

    `limit` names the line that is the last to let this request in (`concurrency` for the running count), `needed` what
    was asked of it, `left` what it still had. `retry_after_s` is the first whole second from now at which this request
    would fit if nothing else came; None means that waiting never helps, as the request is larger than the limit.
    """

    now_ms: int
    used: tuple[int, ...]
    running: int
    limit: str
    maximum: int
    needed: int
    retry_after_s: int | None
    remedy: Remedy
    left: int = 0


class Stale(msgspec.Struct, frozen=True, gc=False):
    """The account's entitlements changed: the limiter knows `version`. Reload them and ask again."""

    version: int


class Missing(msgspec.Struct, frozen=True, gc=False):
    """The limiter holds no state of this account: hydrate it from the ledger and ask again."""


class Skewed(msgspec.Struct, frozen=True, gc=False):
    """A window passed in is not the one running at the limiter's `now_ms`: compute the windows anew and ask again.

    `begun_s` is not 0 where the account counts in a window that begins only then, by a clock that has moved back since:
    the windows of that moment are the right ones. A count never goes back into a window that has ended.
    """

    now_ms: int
    begun_s: int = 0


Decision = Admitted | Refused | Stale | Missing | Skewed


class Counter(msgspec.Struct, frozen=True, gc=False):
    """The live count of one limit: how much of the window that began at `start_s` is used or held."""

    name: str
    start_s: int
    used: int


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """What `settle` is told: the true amount of each line reserved, and the packed usage event.

    `amounts` holds (limit name, start of the window it was admitted in as Unix seconds, amount). `again` marks a
    repeat after an attempt whose outcome is unknown. `admitted_ms` is the limiter's time of admission, 0 for unknown;
    `eras` are the limiter's as they were known by then, () for unknown.
    """

    request_id: str
    account_id: str
    amounts: tuple[tuple[str, int, int], ...]
    event: bytes
    again: bool = False
    admitted_ms: int = 0
    eras: tuple[str, ...] = ()


def judge(asked: Reservation, now_ms: int, used: tuple[int, ...], running: int) -> Refused | None:
    """The refusal that these counters (before the request) mean, or None where every line fits."""
    worst, seen = None, 0
    for line, count in zip(asked.lines, used, strict=True):
        if count + line.amount > line.maximum and (worst is None or _wait_rank(line) > _wait_rank(worst)):
            worst, seen = line, count
    if worst is not None:
        hopeless = worst.amount > worst.maximum
        retry_after_s = (
            None
            if hopeless
            else 1
            if worst.name.startswith(SLOTS)
            else max(1, -(-(worst.end_s * 1000 - now_ms) // 1000))
        )
        limit, left = worst.name.partition(SINCE)[0], max(0, worst.maximum - seen)
        # By position, in the order of the class: by name it takes three times as long, in every refusal of a storm.
        return Refused(now_ms, used, running, limit, worst.maximum, worst.amount, retry_after_s, worst.remedy, left)
    if 0 <= asked.concurrency <= running:
        return Refused(
            now_ms=now_ms,
            used=used,
            running=running,
            limit="concurrency",
            maximum=asked.concurrency,
            needed=1,
            retry_after_s=1 if asked.concurrency else None,
            remedy=Remedy.WAIT if asked.concurrency else Remedy.PAY,
        )
    return None


def used_of(counters: Mapping[str, tuple[int, int]], line: Line) -> int:
    """What counters, by limit name (window start in Unix seconds, used), hold of a line's window; 0 if it is new."""
    start_s, used = counters.get(line.name, (0, 0))
    return used if start_s == line.start_s else 0


def _wait_rank(line: Line) -> tuple[bool, int]:
    return line.amount > line.maximum, 0 if line.name.startswith(SLOTS) else line.end_s
