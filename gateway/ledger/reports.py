"""Sums over all accounts: subscriptions by what they give right now, and usage from the daily and hourly sums.

What a status gives is decided in the database by the same rules as `domain.subscriptions.effective_tier`; a test holds
both against each other.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, ColumnElement, and_, case, cast, false, func, or_, select

from gateway.domain.subscriptions import Access, Rules, Status
from gateway.domain.usage import Outcome
from gateway.domain.windows import FOREVER_S
from gateway.ledger.database import Database, whole
from gateway.ledger.tables import SUMS, accounts, events, subscriptions, usage_daily, usage_hourly
from gateway.ledger.usage import Totals

_NEVER_BEGAN = (Status.FREE, Status.PENDING, Status.INCOMPLETE, Status.INCOMPLETE_EXPIRED)


class Churn(msgspec.Struct, frozen=True):
    """Subscriptions that gave a tier and are over since some second: how many, and of how many accounts without one."""

    ended: int
    not_renewed: int


class Used(msgspec.Struct, frozen=True):
    """What one account, or one endpoint, used in a span."""

    name: str
    totals: Totals


class ReportBook(Database):
    """Raises Fault(LEDGER_UNAVAILABLE) where it can't answer. Spans are half-open, in Unix seconds."""

    @whole
    async def count_accounts(self) -> int:
        """How many accounts there are."""
        async with self.reading() as connection:
            return await connection.scalar(select(func.count()).select_from(accounts)) or 0

    @whole
    async def giving_subscriptions(self, rules: Rules, now_s: int) -> dict[str, int]:
        """How many subscriptions give their tier at `now_s`, by the tier."""
        tier = subscriptions.c.tier
        counted = select(tier, func.count()).where(_gives(rules, now_s)).group_by(tier).order_by(tier)
        async with self.reading() as connection:
            return {str(row[0]): int(row[1]) for row in await connection.execute(counted)}

    @whole
    async def churn(self, rules: Rules, since_s: int, now_s: int) -> Churn:
        """Those that were over between `since_s` and `now_s`, and the accounts among them that now have none."""
        still = select(subscriptions.c.account_id).where(_gives(rules, now_s))
        account_id, status = subscriptions.c.account_id, subscriptions.c.status
        ended_s = case((status.in_(_with(rules, Access.NONE)), subscriptions.c.since_s), else_=_ends_s(rules))
        over = and_(~_gives(rules, now_s), status.not_in(_NEVER_BEGAN), ended_s >= since_s, ended_s <= now_s)
        lost = select(func.count()).select_from(subscriptions).where(over)
        left = select(func.count(account_id.distinct())).where(over, account_id.not_in(still))
        async with self.reading() as connection:
            return Churn(await connection.scalar(lost) or 0, await connection.scalar(left) or 0)

    @whole
    async def top_accounts(self, start_s: int, end_s: int, offset: int, limit: int) -> list[Used]:
        """The accounts that used tokens on the UTC days of the span, highest first, from place `offset` on."""
        day_s, account_id = usage_daily.c.day_s, usage_daily.c.account_id
        sums = _sums(usage_daily)
        page = select(account_id, *sums).where(day_s >= start_s, day_s < end_s).group_by(account_id)
        tokens = func.sum(usage_daily.c.input_tokens + usage_daily.c.output_tokens)
        return await self._used(page.order_by(tokens.desc(), account_id).offset(offset).limit(limit))

    @whole
    async def top_endpoints(self, start_s: int, end_s: int, limit: int) -> list[Used]:
        """The endpoints that were asked in the hours of the span, most requests first."""
        hour_s, endpoint = usage_hourly.c.hour_s, usage_hourly.c.endpoint
        page = select(endpoint, *_sums(usage_hourly)).where(hour_s >= start_s, hour_s < end_s).group_by(endpoint)
        return await self._used(page.order_by(func.sum(usage_hourly.c.requests).desc(), endpoint).limit(limit))

    @whole
    async def hits_by_tier(self, start_s: int, end_s: int) -> list[Used]:
        """What was admitted in the span, by the tier that counted for it then, most requests first.

        Reads each event of the span. What came over from another system was no request here.
        """
        at_ms, tier = events.c.admitted_ms, events.c.tier
        here = and_(at_ms >= start_s * 1000, at_ms < end_s * 1000, events.c.outcome != Outcome.IMPORTED.value)
        sums = [cast(func.count() if name == "events" else func.sum(events.c[name]), BigInteger) for name in SUMS]
        page = select(tier, *sums).where(here).group_by(tier)
        return await self._used(page.order_by(func.sum(events.c.requests).desc(), tier))

    async def _used(self, page: Any) -> list[Used]:
        async with self.reading() as connection:
            return [Used(row[0], Totals(*row[1:])) for row in await connection.execute(page)]


def _sums(table: Any) -> list[ColumnElement[int]]:
    return [cast(func.sum(table.c[name]), BigInteger) for name in SUMS]


def _with(rules: Rules, access: Access) -> Sequence[str]:
    return [status.value for status, given in rules.access.items() if given is access]


def _gives(rules: Rules, now_s: int) -> ColumnElement[bool]:
    """Whether a subscription gives its tier at `now_s`."""
    known = subscriptions.c.status.in_([status for status in rules.access if rules.access[status] is not Access.NONE])
    return and_(known, _ends_s(rules) > now_s) if rules.access else false()


def _ends_s(rules: Rules) -> ColumnElement[int]:
    """When what its status gives is over; FOREVER_S for never. As `domain.subscriptions._end`."""
    one = subscriptions.c
    named = or_(one.cancel_at_s.is_not(None), one.expires_s.is_not(None))
    trial_s = case((one.status == Status.TRIALING.value, one.trial_end_s), else_=None)
    paid_s = func.coalesce(func.nullif(trial_s, 0), one.period_end_s, case((named, FOREVER_S), else_=0))
    since_s = func.coalesce(func.nullif(one.since_s, 0), func.nullif(one.period_start_s, 0), 0)
    by_status = case(
        (one.status.in_(_with(rules, Access.UNTIL_PERIOD_END)), paid_s),
        (one.status.in_(_with(rules, Access.GRACE)), since_s + rules.grace_s),
        else_=FOREVER_S,
    )
    ends = [by_status, func.coalesce(one.cancel_at_s, FOREVER_S), func.coalesce(one.expires_s, FOREVER_S)]
    first = case((ends[1] < ends[2], ends[1]), else_=ends[2])
    return case((ends[0] < first, ends[0]), else_=first)
