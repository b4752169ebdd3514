"""Which tier a subscription gives at a moment."""

from typing import Any

import pytest

from gateway.domain.subscriptions import (
    DEFAULT_ACCESS,
    Access,
    Kind,
    Rules,
    Status,
    Subscription,
    effective_of,
    effective_tier,
)

NOW_S = 1_795_262_400
RULES = Rules()


def bought(status: Status = Status.ACTIVE, **fields: Any) -> Subscription:
    """A subscription to premium, in the middle of a month that began ten days ago."""
    given = {"period_start_s": NOW_S - 10 * 86_400, "period_end_s": NOW_S + 20 * 86_400, **fields}
    return Subscription(given.pop("id", "s1"), "acme", given.pop("tier", "premium"), status, **given)


@pytest.mark.parametrize(
    ("status", "tier"),
    [
        (Status.FREE, "free"),
        (Status.ACTIVE, "premium"),
        (Status.CANCELLED, "premium"),
        (Status.EXPIRED, "free"),
        (Status.PENDING, "free"),
        (Status.CANCELED, "free"),
        (Status.TRIALING, "premium"),
        (Status.INCOMPLETE, "free"),
        (Status.INCOMPLETE_EXPIRED, "free"),
        (Status.UNPAID, "free"),
        (Status.PAUSED, "free"),
    ],
)
def test_what_each_status_gives(status: Status, tier: str) -> None:
    """D3, E2: without a line of settings, who pays has the tier, and who doesn't has not."""
    assert effective_tier(bought(status), NOW_S, RULES, "free").tier == tier
    assert set(DEFAULT_ACCESS) == set(Status)


@pytest.mark.parametrize(
    ("subscription", "ends_s"),
    [
        (bought(Status.CANCELLED), NOW_S + 20 * 86_400),
        (bought(Status.CANCELLED, expires_s=NOW_S + 5), NOW_S + 5),
        (bought(Status.CANCELLED, cancel_at_s=NOW_S + 9, expires_s=NOW_S + 5), NOW_S + 5),
        (bought(Status.ACTIVE, cancel_at_s=NOW_S + 7), NOW_S + 7),
        (bought(Status.ACTIVE, expires_s=NOW_S + 1), NOW_S + 1),
        (bought(Status.PAST_DUE, since_s=NOW_S - 86_400), NOW_S + 2 * 86_400),
        (bought(Status.PAST_DUE, period_start_s=NOW_S - 100), NOW_S - 100 + 3 * 86_400),
    ],
)
def test_it_ends_at_its_second(subscription: Subscription, ends_s: int) -> None:
    """D3, E2: the second before it is premium, at the second it is free, and the second is told in advance."""
    before, after = (effective_tier(subscription, second, RULES, "free") for second in (ends_s - 1, ends_s))

    assert (before.tier, before.changes_at_s, before.kind) == ("premium", ends_s, Kind.SUBSCRIBED)
    assert (after.tier, after.changes_at_s, after.kind) == ("free", None, Kind.FREE)
    assert after.reason.startswith(f"its subscription ({subscription.status}) was over at ")


def test_cancelled_without_any_date_is_over() -> None:
    """D3: nobody keeps a paid tier for ever because a date is missing."""
    assert effective_tier(Subscription("s", "acme", "premium", Status.CANCELLED), NOW_S, RULES, "free").tier == "free"


def test_a_trial_may_be_bound_to_its_end() -> None:
    """E2: an operator who wants trials to end by the clock says so, and they end with the trial, not the period."""
    rules = Rules({**DEFAULT_ACCESS, Status.TRIALING: Access.UNTIL_PERIOD_END})
    trial = bought(Status.TRIALING, trial_end_s=NOW_S + 60)

    assert effective_tier(trial, NOW_S, rules, "free").kind is Kind.TRIAL
    assert effective_tier(trial, NOW_S + 60, rules, "free").tier == "free"


def test_who_never_subscribed_has_the_accounts_own_tier() -> None:
    """D3: `set-tier` works without any subscription, and a fallback tier doesn't take it away."""
    rules = Rules(fallback_tier="lapsed")

    assert effective_tier(None, NOW_S, rules, "gift").tier == "gift"
    assert effective_tier(bought(Status.EXPIRED), NOW_S, rules, "gift").tier == "lapsed"
    assert effective_tier(bought(Status.EXPIRED), NOW_S, RULES, "gift").tier == "gift"


def test_of_several_the_one_that_gives_most_lately_counts() -> None:
    """E10: the late news of an old subscription's end never takes away what a new one gives."""
    old = bought(Status.CANCELED, id="old", period_start_s=NOW_S - 50, updated_ms=9)
    new = bought(Status.ACTIVE, id="new", tier="ultra", period_start_s=NOW_S - 100, expires_s=NOW_S + 10)
    older = bought(Status.ACTIVE, id="older", period_start_s=NOW_S - 1000)

    assert effective_of((old, new, older), NOW_S, RULES, "free").tier == "ultra"
    assert effective_of((old, new, older), NOW_S + 10, RULES, "free").tier == "premium"
    assert effective_of((old,), NOW_S, RULES, "free").reason == "its subscription is canceled"
    assert effective_of((), NOW_S, RULES, "free").reason == "no subscription"
