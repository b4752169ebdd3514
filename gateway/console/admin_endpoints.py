"""The admin API as a table: each line is what is served, what the OpenAPI document tells of it, and what is tested."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from gateway.console import admin_accounts, admin_plans, admin_stats, explain
from gateway.console.admin_answers import (
    AccountPage,
    AccountTold,
    AddonList,
    AuditPage,
    Explanation,
    KeyList,
    KeyTold,
    NewAddonTold,
    NewKeyTold,
    Stats,
    SubscriptionPage,
    SubscriptionTold,
    TierList,
    TopTold,
)
from gateway.console.admin_bodies import (
    AuditQuery,
    Ending,
    KeyExpiry,
    NewAccount,
    NewAddon,
    NewKey,
    Nothing,
    Overrides,
    Paging,
    StatsQuery,
    SubscriptionBody,
    TierChange,
    TopQuery,
)
from gateway.console.admin_desk import Desk
from gateway.domain.audit import Actor


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the admin API: what its path names, its query and body as typed, and who asks."""

    desk: Desk
    name: str
    query: Any
    body: Any
    by: Actor


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One line of the table. `path` is below `{prefix}/admin` and names at most one thing, in braces.

    `body` None takes none; `told` is the type of what `serve` answers under `status`.
    """

    method: str
    path: str
    does: str
    serve: Callable[[Call], Awaitable[Any]]
    told: type
    body: type | None = None
    query: type = Nothing
    status: int = 200

    @property
    def name(self) -> str:
        """What the path names, `account` for instance; empty where it names nothing."""
        return self.path.partition("{")[2].partition("}")[0]


async def _tiers(call: Call) -> TierList:
    return admin_plans.tiers(call.desk)


_ACCOUNT, _KEY, _SUBSCRIPTION = "/accounts/{account}", "/keys/{key}", "/subscriptions/{subscription}"

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "GET",
        "/accounts",
        "List accounts by id",
        lambda call: admin_accounts.list_accounts(call.desk, call.query),
        AccountPage,
        query=Paging,
    ),
    Endpoint(
        "POST",
        "/accounts",
        "Make an account",
        lambda call: admin_accounts.create_account(call.desk, call.body, call.by),
        AccountTold,
        NewAccount,
        status=201,
    ),
    Endpoint(
        "GET",
        _ACCOUNT,
        "Show an account",
        lambda call: admin_accounts.get_account(call.desk, call.name),
        AccountTold,
    ),
    Endpoint(
        "GET",
        f"{_ACCOUNT}/explain",
        "Tell what an account may do right now, and why",
        lambda call: explain.explain(call.desk, call.name),
        Explanation,
    ),
    Endpoint(
        "PUT",
        f"{_ACCOUNT}/tier",
        "Move an account to another tier",
        lambda call: admin_accounts.set_tier(call.desk, call.name, call.body, call.by),
        AccountTold,
        TierChange,
    ),
    Endpoint(
        "POST",
        f"{_ACCOUNT}/suspend",
        "Refuse all requests of an account",
        lambda call: admin_accounts.set_suspended(call.desk, call.name, True, call.by),
        AccountTold,
    ),
    Endpoint(
        "POST",
        f"{_ACCOUNT}/resume",
        "Let a suspended account in again",
        lambda call: admin_accounts.set_suspended(call.desk, call.name, False, call.by),
        AccountTold,
    ),
    Endpoint(
        "GET",
        f"{_ACCOUNT}/keys",
        "List an account's keys",
        lambda call: admin_accounts.list_keys(call.desk, call.name),
        KeyList,
    ),
    Endpoint(
        "POST",
        f"{_ACCOUNT}/keys",
        "Make a key; its text is told this once",
        lambda call: admin_accounts.create_key(call.desk, call.name, call.body, call.by),
        NewKeyTold,
        NewKey,
        status=201,
    ),
    Endpoint(
        "GET",
        f"{_ACCOUNT}/overrides",
        "Show what was set for an account by hand",
        lambda call: admin_plans.get_overrides(call.desk, call.name),
        Overrides,
    ),
    Endpoint(
        "PUT",
        f"{_ACCOUNT}/overrides",
        "Let these be an account's overrides, in place of all before",
        lambda call: admin_plans.set_overrides(call.desk, call.name, call.body, call.by),
        Overrides,
        Overrides,
    ),
    Endpoint(
        "GET",
        f"{_ACCOUNT}/addons",
        "List an account's add-ons",
        lambda call: admin_plans.list_addons(call.desk, call.name),
        AddonList,
    ),
    Endpoint(
        "POST",
        f"{_ACCOUNT}/addons",
        "Give an account an add-on, or take back with an amount below 0",
        lambda call: admin_plans.add_addon(call.desk, call.name, call.body, call.by),
        NewAddonTold,
        NewAddon,
        status=201,
    ),
    Endpoint("GET", _KEY, "Show a key", lambda call: admin_accounts.get_key(call.desk, call.name), KeyTold),
    Endpoint(
        "POST",
        f"{_KEY}/revoke",
        "Refuse a key from now on",
        lambda call: admin_accounts.revoke_key(call.desk, call.name, call.by),
        KeyTold,
    ),
    Endpoint(
        "PUT",
        f"{_KEY}/expiry",
        "Say anew when a key stops working",
        lambda call: admin_accounts.set_key_expiry(call.desk, call.name, call.body, call.by),
        KeyTold,
        KeyExpiry,
    ),
    Endpoint(
        "GET",
        "/subscriptions",
        "List subscriptions by id",
        lambda call: admin_plans.list_subscriptions(call.desk, call.query),
        SubscriptionPage,
        query=Paging,
    ),
    Endpoint(
        "GET",
        _SUBSCRIPTION,
        "Show a subscription",
        lambda call: admin_plans.get_subscription(call.desk, call.name),
        SubscriptionTold,
    ),
    Endpoint(
        "PUT",
        _SUBSCRIPTION,
        "Make a subscription, or let it be as said",
        lambda call: admin_plans.put_subscription(call.desk, call.name, call.body, call.by),
        SubscriptionTold,
        SubscriptionBody,
    ),
    Endpoint(
        "POST",
        f"{_SUBSCRIPTION}/end",
        "Let a subscription be over",
        lambda call: admin_plans.end_subscription(call.desk, call.name, call.body, call.by),
        SubscriptionTold,
        Ending,
    ),
    Endpoint(
        "GET",
        "/audit",
        "Tell who did what, newest first",
        lambda call: admin_accounts.audit(call.desk, call.query),
        AuditPage,
        query=AuditQuery,
    ),
    Endpoint(
        "GET",
        "/stats",
        "Tell of subscriptions and requests by tier, churn, refusals and endpoints",
        lambda call: admin_stats.stats(call.desk, call.query),
        Stats,
        query=StatsQuery,
    ),
    Endpoint(
        "GET",
        "/stats/accounts",
        "List the accounts of a day or month by tokens, highest first",
        lambda call: admin_stats.top_accounts(call.desk, call.query),
        TopTold,
        query=TopQuery,
    ),
    Endpoint("GET", "/tiers", "List the tiers as they are in force", _tiers, TierList),
)
