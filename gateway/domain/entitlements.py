"""Entitlements: what an account may do right now, of its tier, its subscription, its overrides and its add-ons. Pure.

In this order: the effective tier; the subscription's own terms; the overrides made by hand; then add-ons raise what is
left of limits. Nothing here moves a counter: a higher maximum counts inside the running window at once, a lower one
refuses until the window rolls, and nobody ever owes what was allowed when it was used.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import UNSET

from gateway.domain.accounts import Account, ApiKey
from gateway.domain.limits import MAXIMUM, Limit, Remedy, Tier, Unit, Window
from gateway.domain.subscriptions import Effective, Rules, Subscription, effective_of
from gateway.domain.terms import NO_TERMS, Terms, limit_named, merged


class Grant(msgspec.Struct, frozen=True):
    """An add-on: `amount` more of a limit, from `from_s` until before `until_s` (Unix seconds; None for good).

    `window` None raises the unit's limits that are mended by paying, or its longest one where none is. What is taken
    back (a refund) is a grant below 0; a grant is never changed. `id` makes adding it idempotent.
    """

    id: str
    account_id: str
    unit: Unit
    amount: int
    window: Window | None = None
    from_s: int = 0
    until_s: int | None = None
    source: str = "manual"
    note: str = ""
    created_ms: int = 0


class Standing(msgspec.Struct, frozen=True):
    """All that the ledger knows of what an account may do, as of one moment."""

    account: Account
    subscriptions: tuple[Subscription, ...] = ()
    overrides: Terms = NO_TERMS
    grants: tuple[Grant, ...] = ()


class Credential(msgspec.Struct, frozen=True):
    """A key and its account's standing."""

    key: ApiKey
    standing: Standing


class Entitlements(msgspec.Struct, frozen=True):
    """What an account may do at a moment. `version` is the account's.

    `tier` is the effective tier made out for this account; the tier's very own where `is_plain`, None where the
    settings know no such tier. `base` is each limit before add-ons, by name; `addons` what they add. Holds until
    `until_s` (Unix seconds; None: until something is changed).
    """

    version: int
    effective: Effective
    tier: Tier | None
    is_plain: bool
    base: Mapping[str, int]
    addons: Mapping[str, int]
    until_s: int | None


class Entitled(msgspec.Struct, frozen=True):
    """Entitlements as requests need them: the tier's name, and the plan where it isn't the tier's own.

    `plan` is whatever the rest of the gateway compiles tiers to.
    """

    tier: str
    plan: Any = None
    until_s: int | None = None


def entitlements(standing: Standing, now_s: int, tiers: Mapping[str, Tier], rules: Rules) -> Entitlements:
    """What the account may do at `now_s`."""
    account = standing.account
    effective = effective_of(standing.subscriptions, now_s, rules, account.tier)
    granted, grants_until_s = _running(standing.grants, now_s)
    until_s = min((s for s in (effective.changes_at_s, grants_until_s) if s is not None), default=None)
    tier = tiers.get(effective.tier)
    if tier is None:
        return Entitlements(account.version, effective, None, False, {}, {}, until_s)
    subscription = effective.subscription
    terms = merged(NO_TERMS if subscription is None else subscription.terms, standing.overrides)
    own = tier if terms == NO_TERMS else _under(tier, terms)
    base = {limit.name: limit.maximum for limit in own.limits}
    addons = _addons(own.limits, granted)
    if any(addons.values()):
        own = replace(own, limits=tuple(_raised(limit, addons[limit.name]) for limit in own.limits))
    if subscription is not None and any(limit.window is Window.PERIOD for limit in own.limits):
        own = replace(own, period=subscription.period)
    return Entitlements(account.version, effective, own, own is tier, base, addons, until_s)


def _running(grants: Iterable[Grant], now_s: int) -> tuple[list[Grant], int | None]:
    """The grants that count now, and when that changes."""
    edges = [s for grant in grants for s in (grant.from_s, grant.until_s) if s is not None and s > now_s]
    running = [one for one in grants if one.from_s <= now_s and (one.until_s is None or now_s < one.until_s)]
    return running, min(edges, default=None)


def _under(tier: Tier, terms: Terms) -> Tier:
    """The tier under terms: limits in its own order, then those that only the terms name."""
    limits = [
        limit if limit.name not in terms.limits else replace(limit, maximum=maximum)
        for limit in tier.limits
        if (maximum := terms.limits.get(limit.name, limit.maximum)) is not None
    ]
    known = {limit.name for limit in tier.limits}
    for name, maximum in terms.limits.items():
        named = limit_named(name)
        if name not in known and maximum is not None and named is not None:
            limits.append(Limit(*named, maximum, usual_remedy(named[1])))
    return replace(
        tier,
        limits=tuple(limits),
        concurrency=tier.concurrency if terms.concurrency is UNSET else terms.concurrency,
        numbers={**tier.numbers, **terms.numbers},
        features={**tier.features, **terms.features},
    )


def usual_remedy(window: Window) -> Remedy:
    """What helps against a limit that doesn't say: to pay for a month's or longer, to wait for the rest."""
    return Remedy.PAY if window in _LONG else Remedy.WAIT


_LONG = frozenset({Window.MONTH, Window.PERIOD, Window.LIFETIME})
_BY_LENGTH = list(Window)


def _addons(limits: Sequence[Limit], grants: Sequence[Grant]) -> dict[str, int]:
    """What add-ons add to each limit, by its name."""
    added = dict.fromkeys((limit.name for limit in limits), 0)
    for grant in grants:
        for limit in _raised_by(limits, grant):
            added[limit.name] += grant.amount
    return {name: max(0, amount) for name, amount in added.items()}


def _raised_by(limits: Sequence[Limit], grant: Grant) -> list[Limit]:
    of_unit = [limit for limit in limits if limit.unit is grant.unit]
    if grant.window is not None:
        return [limit for limit in of_unit if limit.window is grant.window]
    paid = [limit for limit in of_unit if limit.remedy is Remedy.PAY]
    return paid or sorted(of_unit, key=lambda limit: _BY_LENGTH.index(limit.window))[-1:]


def _raised(limit: Limit, amount: int) -> Limit:
    return replace(limit, maximum=min(MAXIMUM, limit.maximum + amount)) if amount else limit
