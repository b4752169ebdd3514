"""What an imported record comes to: an account, its subscription, overrides, add-on, and its usage so far. Pure.

Usage so far becomes events of the outcome `imported`, so that limits, history and exports count it like any other. Ids
are made of the account's, so that the same record again is the same, and what was used is taken once.
"""

import re

import msgspec

from gateway.cli.import_columns import Imported
from gateway.console.usage_period import period_span
from gateway.domain.accounts import Account
from gateway.domain.entitlements import Entitlements, Grant, Standing, entitlements
from gateway.domain.limits import Tier, Unit
from gateway.domain.periods import Interval
from gateway.domain.subscriptions import Rules, Status, Subscription
from gateway.domain.terms import NO_TERMS, Terms
from gateway.domain.usage import CountedBy, Outcome, UsageEvent
from gateway.ledger.arrivals import Arrival

SOURCE = "import"
_ACCOUNT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}")
_DAY_MS = 86_400_000


class Importer(msgspec.Struct, frozen=True):
    """Makes arrivals, by the tiers and rules in force, as of the second `now_s`."""

    tiers: dict[str, Tier]
    rules: Rules
    default_tier: str
    now_s: int

    def arrival(self, told: Imported) -> Arrival:
        """Raises ValueError for what can't be taken."""
        if not _ACCOUNT_ID.fullmatch(told.account):
            raise ValueError(f"`account`: {told.account[:80]!r} can't be an id: 1 to 128 letters, digits and . _ @ : -")
        own = told.account_tier or (None if told.has_subscription else told.tier)
        for name in (own, told.tier):
            if name is not None and name not in self.tiers:
                raise ValueError(f"`tier`: there is no tier {name!r}; there are: {', '.join(self.tiers)}")
        account = Account(told.account, told.name, own or self.default_tier, False, 1, self.now_s * 1000)
        subscription = self._subscription(told) if told.has_subscription else None
        terms = self._terms(told, subscription.tier if subscription else account.tier)
        if subscription is not None:
            subscription = msgspec.structs.replace(subscription, terms=terms)
        grant = _grant(told) if told.addon_tokens else None
        return Arrival(
            account,
            own is None,
            subscription,
            terms if subscription is None and terms != NO_TERMS else None,
            grant,
            self._used(told, account, subscription),
        )

    def _subscription(self, told: Imported) -> Subscription:
        if told.tier is None:
            raise ValueError("`tier`: a subscription needs one")
        if told.period_end is not None and told.period_end <= (told.period_start or 0):
            raise ValueError("`period_end`: a period ends after its start")
        return Subscription(
            id=told.subscription_id or f"{SOURCE}/{told.account}",
            account_id=told.account,
            tier=told.tier,
            status=told.status or Status.ACTIVE,
            source="stripe" if (told.subscription_id or "").startswith("sub_") else SOURCE,
            customer_id=told.customer_id,
            product_id=told.product_id,
            price_id=told.price_id,
            period_start_s=told.period_start,
            period_end_s=told.period_end,
            interval=Interval(told.interval or 1),
            trial_end_s=told.trial_end,
            cancel_at_s=told.cancel_at,
            canceled_at_s=told.canceled_at,
            expires_s=told.expires_at,
            since_s=told.updated_at or told.period_start or 0,
            updated_ms=(told.updated_at or 0) * 1000,
            reset_ms=1000 * (told.last_reset or told.period_start or 0) or None,
        )

    def _terms(self, told: Imported, tier_name: str) -> Terms:
        """What the record says of limits that its tier doesn't."""
        own = {limit.name: limit.maximum for limit in self.tiers[tier_name].limits}
        month = "tokens/period" if "tokens/period" in own else "tokens/month"
        said = {month: told.max_tokens_per_month, "tokens/day": told.max_tokens_per_day}
        limits = {name: maximum for name, maximum in said.items() if maximum is not None and own.get(name) != maximum}
        return Terms(limits=dict(limits)) if limits else NO_TERMS

    def _used(self, told: Imported, account: Account, subscription: Subscription | None) -> tuple[UsageEvent, ...]:
        used, requests = told.tokens_used or 0, told.requests_used or 0
        earlier = (told.lifetime_tokens or 0) - used
        if earlier < 0:
            if told.lifetime_tokens is not None:
                raise ValueError("`lifetime_tokens`: less than what was used in the period alone")
            earlier = 0
        standing = Standing(account, () if subscription is None else (subscription,))
        start_ms = self._start_s(entitlements(standing, self.now_s, self.tiers, self.rules)) * 1000
        running = _event(told.account, "used", start_ms, used, requests)
        before = _event(told.account, "earlier", max(0, start_ms - _DAY_MS), earlier, 0)
        return tuple(event for event in (before, running) if event.input_tokens or event.requests)

    def _start_s(self, entitled: Entitlements) -> int:
        """Where the window begins that the usage so far is of."""
        if entitled.tier is None:
            raise ValueError(f"`tier`: the account would be on {entitled.effective.tier!r}, which is not there")
        return period_span(entitled, entitled.tier, self.now_s)[0]


def _grant(told: Imported) -> Grant:
    return Grant(f"{SOURCE}/{told.account}/addon", told.account, Unit.TOKENS, told.addon_tokens or 0, source=SOURCE)


def _event(account_id: str, part: str, at_ms: int, tokens: int, requests: int) -> UsageEvent:
    """Tokens of nobody knows which kind are input: they cost what a limit on tokens counts, once."""
    return UsageEvent(
        request_id=f"{SOURCE}/{account_id}/{part}",
        account_id=account_id,
        key_id="",
        tier="",
        route="",
        endpoint="import",
        model="",
        upstream="",
        admitted_ms=at_ms,
        settled_ms=at_ms,
        status=0,
        outcome=Outcome.IMPORTED,
        counted_by=CountedBy.UPSTREAM,
        streamed=False,
        requests=requests,
        input_tokens=tokens,
        output_tokens=0,
        cached_tokens=0,
        reasoning_tokens=0,
        estimated_tokens=tokens,
        request_bytes=0,
        response_bytes=0,
    )
