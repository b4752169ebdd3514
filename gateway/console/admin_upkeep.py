"""Looks every account over: what it lacks, and what is wrong with it. See `admin_desk.py`."""

from collections.abc import AsyncIterator

from gateway.console.admin_desk import Desk
from gateway.domain.audit import Actor
from gateway.domain.entitlements import Standing
from gateway.domain.limits import Tier, Window
from gateway.domain.terms import unfit_terms
from gateway.settings.tiers import tiers_of

_PAGE = 500


async def standings(desk: Desk) -> AsyncIterator[Standing]:
    """Every account, a page at a time in memory."""
    page = await desk.ledger.list_standings(limit=_PAGE)
    while page:
        for standing in page:
            yield standing
        page = await desk.ledger.list_standings(page[-1].account.id, _PAGE)


async def backfill(desk: Desk, standing: Standing, by: Actor, *, dry_run: bool) -> bool:
    """Give the account the default tier where the settings lack its own; whether that was so. Safe to do again."""
    settings = desk.settings()
    if standing.account.tier in settings.tiers:
        return False
    if not dry_run:
        await desk.ledger.set_tier(standing.account.id, settings.default_tier, desk.now_ms(), by)
    return True


def wrong_with(desk: Desk, standing: Standing) -> list[str]:
    """What is wrong with the account, a sentence each."""
    tiers = tiers_of(desk.settings())
    wrong = []
    if standing.account.tier not in tiers:
        wrong.append(f"its tier `{standing.account.tier}` is not in the settings: `tollway accounts backfill`")
    for one in standing.subscriptions:
        tier = tiers.get(one.tier)
        if tier is None:
            wrong.append(f"the tier `{one.tier}` of its subscription `{one.id}` is not in the settings")
        elif one.period is None and _has_period(tier):
            wrong.append(f"its subscription `{one.id}` has no period, though tier `{one.tier}` counts by it")
        wrong += [f"the terms of its subscription `{one.id}`: {text}" for text in unfit_terms(one.terms)]
    wrong += [f"its overrides: {text}" for text in unfit_terms(standing.overrides)]
    entitled = desk.entitlements(standing, desk.now_s)
    units = {limit.unit for limit in entitled.tier.limits} if entitled.tier else set()
    wrong += [
        f"its add-on `{one.id}` raises nothing: no limit of its tier is of {one.unit}"
        for one in standing.grants
        if entitled.tier and one.unit not in units
    ]
    return wrong


def _has_period(tier: Tier) -> bool:
    return any(limit.window is Window.PERIOD for limit in tier.limits)
