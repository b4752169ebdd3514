"""Usage in the ledger: events, their hourly and daily sums, and what was used in a window.

An event counts once, by its request id, and where it was admitted: `admitted_ms` decides its hour, its day (UTC) and
its window, so that the events of a window add up to its counter. The insert says which events are new, and only these
are added to the sums, all in one transaction: taking a batch again, or half of it with others, changes nothing.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Select, Table, and_, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.domain.usage import UsageEvent
from gateway.ledger.database import Database, whole
from gateway.ledger.tables import SUMS, events, set_aside, usage_daily, usage_hourly

HOUR_S, DAY_S = 3_600, 86_400
_LATEST_MS = 253_402_300_799_999
_MOST = 2**48


class Totals(msgspec.Struct, frozen=True, gc=False):
    """Sums over a span. `requests` counts those that were not given back; `events` all that were settled."""

    events: int = 0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Input and output together: what the unit `tokens` counts."""
        return self.input_tokens + self.output_tokens


class DayUsage(msgspec.Struct, frozen=True, gc=False):
    """What an account used on the UTC day that began at `day_s`."""

    day_s: int
    totals: Totals


class HourUsage(msgspec.Struct, frozen=True, gc=False):
    """What an account used of one model, at one endpoint, in the hour that began at `hour_s`."""

    hour_s: int
    endpoint: str
    model: str
    totals: Totals


def unfit(event: UsageEvent) -> str | None:
    """Why the ledger can't hold the event: a time or count beyond what its sums can carry; None where it can."""
    if not 0 <= event.admitted_ms <= _LATEST_MS or not 0 <= event.settled_ms <= _LATEST_MS:
        return "a time outside 1970 to 9999"
    counts = (
        event.status,
        event.requests,
        event.input_tokens,
        event.output_tokens,
        event.cached_tokens,
        event.reasoning_tokens,
        event.estimated_tokens,
        event.request_bytes,
        event.response_bytes,
    )
    return "a count beyond 2^48" if max(counts) > _MOST or min(counts) < -_MOST else None


class UsageBook(Database):
    """What the ledger knows of usage. Raises Fault(LEDGER_UNAVAILABLE) where it can't answer. Spans are half-open."""

    @whole
    async def take_events(self, batch: Sequence[UsageEvent]) -> int:
        """Write down those that the ledger doesn't hold yet and add them to the sums; return how many were new."""
        if not batch:
            return 0
        async with self.writing() as connection:
            return len(await self._put_events(connection, batch))

    async def _put_events(self, connection: AsyncConnection, batch: Sequence[UsageEvent]) -> list[UsageEvent]:
        """As `take_events`, within a transaction of the caller's; those that were new."""
        store = self._store
        by_id = {event.request_id: event for event in reversed(store.storable(batch))}
        new = [by_id[request_id] for request_id in await store.insert_events(connection, list(by_id.values()))]
        if new:
            hours = _by_hour(new)
            await store.add_sums(connection, usage_hourly, _rows(usage_hourly, hours))
            await store.add_sums(connection, usage_daily, _rows(usage_daily, _by_day(hours)))
        return new

    @whole
    async def set_aside(self, payloads: Sequence[tuple[bytes, str]], now_ms: int) -> None:
        """Keep (payload, reason) pairs that are no events; the same payload again changes nothing."""
        rows = [
            {"digest": hashlib.sha256(payload).digest(), "payload": payload, "reason": reason, "set_aside_ms": now_ms}
            for payload, reason in payloads
        ]
        async with self.writing() as connection:
            await self._store.insert_new(connection, set_aside, rows)

    @whole
    async def set_aside_count(self) -> int:
        """How many payloads were set aside so far."""
        async with self.reading() as connection:
            return await connection.scalar(select(func.count()).select_from(set_aside)) or 0

    @whole
    async def totals(self, account_id: str, start_s: int, end_s: int) -> Totals:
        """What the account used in [start_s, end_s), exactly: whole hours from the sums, ragged ends from events."""
        first_s, last_s = -(-start_s // HOUR_S) * HOUR_S, end_s // HOUR_S * HOUR_S
        if first_s >= last_s:
            parts = [_total(events, events.c.account_id == account_id, _admitted(start_s, end_s))]
        else:
            hours = usage_hourly.c
            within = and_(hours.account_id == account_id, hours.hour_s >= first_s, hours.hour_s < last_s)
            parts = [_total(usage_hourly, within)]
            for ragged in ((start_s, first_s), (last_s, end_s)):
                if ragged[0] < ragged[1]:
                    parts.append(_total(events, events.c.account_id == account_id, _admitted(*ragged)))
        async with self.reading() as connection:
            sums = [(await connection.execute(part)).one() for part in parts]
        return Totals(*map(sum, zip(*sums, strict=True)))

    @whole
    async def usage_by_day(self, account_id: str, start_s: int, end_s: int) -> list[DayUsage]:
        """The UTC days that begin within the span and saw usage, in order."""
        table, day_s = usage_daily, usage_daily.c.day_s
        days = select(day_s, *_columns(table)).where(table.c.account_id == account_id, day_s >= start_s, day_s < end_s)
        async with self.reading() as connection:
            return [DayUsage(row[0], Totals(*row[1:])) for row in await connection.execute(days.order_by(day_s))]

    @whole
    async def usage_by_hour(self, account_id: str, start_s: int, end_s: int) -> list[HourUsage]:
        """The hours that begin within the span and saw usage, in order, by endpoint and model."""
        table = usage_hourly
        keys = (table.c.hour_s, table.c.endpoint, table.c.model)
        within = and_(table.c.account_id == account_id, table.c.hour_s >= start_s, table.c.hour_s < end_s)
        hours = select(*keys, *_columns(table)).where(within).order_by(*keys)
        async with self.reading() as connection:
            return [HourUsage(row[0], row[1], row[2], Totals(*row[3:])) for row in await connection.execute(hours)]

    @whole
    async def event(self, request_id: str) -> UsageEvent | None:
        """The event of one request, None where the ledger holds none."""
        async with self.reading() as connection:
            row = (await connection.execute(select(events).where(events.c.request_id == request_id))).first()
        return None if row is None else _as_event(row)

    @whole
    async def latest_ms(self, account_id: str) -> int:
        """When the latest of the account's requests was admitted, Unix milliseconds; 0 without any."""
        async with self.reading() as connection:
            latest = select(func.max(events.c.admitted_ms)).where(events.c.account_id == account_id)
            return await connection.scalar(latest) or 0

    @whole
    async def recent_events(self, account_id: str, limit: int) -> list[UsageEvent]:
        """The account's latest events by admission, newest first."""
        newest = events.c.admitted_ms.desc(), events.c.request_id
        latest = select(events).where(events.c.account_id == account_id).order_by(*newest).limit(limit)
        async with self.reading() as connection:
            return [_as_event(row) for row in await connection.execute(latest)]


def _by_hour(new: Iterable[UsageEvent]) -> dict[tuple[str, int, str, str], list[int]]:
    sums: defaultdict[tuple[str, int, str, str], list[int]] = defaultdict(lambda: [0] * len(SUMS))
    for event in new:
        hour_s = event.admitted_ms // (HOUR_S * 1000) * HOUR_S
        row = sums[event.account_id, hour_s, event.endpoint, event.model]
        row[0] += 1
        row[1] += event.requests
        row[2] += event.input_tokens
        row[3] += event.output_tokens
        row[4] += event.cached_tokens
        row[5] += event.reasoning_tokens
    return sums


def _by_day(hours: dict[tuple[str, int, str, str], list[int]]) -> dict[tuple[str, int], list[int]]:
    sums: defaultdict[tuple[str, int], list[int]] = defaultdict(lambda: [0] * len(SUMS))
    for (account_id, hour_s, _, _), row in hours.items():
        day = account_id, hour_s // DAY_S * DAY_S
        sums[day] = [total + part for total, part in zip(sums[day], row, strict=True)]
    return sums


def _rows(table: Table, sums: Mapping[Any, list[int]]) -> list[dict[str, str | int]]:
    names = table.columns.keys()
    return [dict(zip(names, (*key, *row), strict=True)) for key, row in sums.items()]


def _admitted(start_s: int, end_s: int) -> ColumnElement[bool]:
    return and_(events.c.admitted_ms >= start_s * 1000, events.c.admitted_ms < end_s * 1000)


def _total(table: Table, *within: ColumnElement[bool]) -> Select[Any]:
    count = func.count() if table is events else _sum(table.c.events)
    columns: list[ColumnElement[Any]] = [count, *[_sum(table.c[name]) for name in SUMS[1:]]]
    return select(*columns).select_from(table).where(*within)


def _sum(column: ColumnElement[int]) -> ColumnElement[int]:
    # PostgreSQL adds 64-bit integers up to a decimal.
    return cast(func.coalesce(func.sum(column), 0), BigInteger)


def _columns(table: Table) -> list[ColumnElement[int]]:
    return [table.c[name] for name in SUMS]


def _as_event(row: Sequence[Any]) -> UsageEvent:
    return msgspec.convert(tuple(row), UsageEvent, strict=False)
