"""List, show, put and end subscriptions.

One that another system keeps (its source, Stripe for instance) is changed there. Moments are days, like 2026-12-01, or
RFC 3339.
"""

import argparse

from gateway.cli.desk import as_json, typed, work_at_desk
from gateway.cli.moment import read, shown
from gateway.cli.operator import operator
from gateway.cli.overrides import add_terms, terms
from gateway.cli.table import table
from gateway.cli.verbs import add_verb
from gateway.console import admin_plans
from gateway.console.admin_answers import SubscriptionTold
from gateway.console.admin_bodies import Ending, Paging, SubscriptionBody
from gateway.console.admin_desk import Desk

_PAGE = 500
_MOMENTS = ("period-start", "period-end", "trial-end", "cancel-at", "expires-at")
_WORDS = ("customer-id", "product-id", "price-id")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    add_verb(verbs, "list", "list every subscription").add_argument("--account", default="", help="of this one alone")
    add_verb(verbs, "show", "show one, as JSON").add_argument("id", metavar="ID")
    put = add_verb(verbs, "put", "make one, or let it be as said: what isn't said is empty")
    put.add_argument("id", metavar="ID")
    put.add_argument("--account", required=True)
    put.add_argument("--tier", required=True)
    put.add_argument("--status", required=True)
    for name in _MOMENTS:
        put.add_argument(f"--{name}", metavar="MOMENT")
    for name in _WORDS:
        put.add_argument(f"--{name}")
    put.add_argument("--months", type=int, help="how far apart renewals are; 1 unless given")
    put.add_argument("--days", type=int, help="the same in days")
    add_terms(put)
    end = add_verb(verbs, "end", "let one be over")
    end.add_argument("id", metavar="ID")
    end.add_argument("--at", metavar="MOMENT", help="now, unless given")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    return work_at_desk(args, _do)


async def _do(desk: Desk, args: argparse.Namespace) -> None:
    if args.verb == "list":
        print(_listed(await _all(desk, args.account)))
    elif args.verb == "show":
        print(as_json(await admin_plans.get_subscription(desk, args.id)))
    elif args.verb == "put":
        print(_listed([await admin_plans.put_subscription(desk, args.id, _asked(args), operator())]))
    else:
        ending = Ending(at=read(args.at))
        print(_listed([await admin_plans.end_subscription(desk, args.id, ending, operator())]))


def _asked(args: argparse.Namespace) -> SubscriptionBody:
    given = {name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name in (*_MOMENTS, *_WORDS)}
    moments = {name.replace("-", "_"): read(given.pop(name.replace("-", "_"))) for name in _MOMENTS}
    every = {name: value for name, value in (("months", args.months), ("days", args.days)) if value is not None}
    return typed(
        SubscriptionBody,
        account=args.account,
        tier=args.tier,
        status=args.status,
        interval=every,
        terms=terms(args),
        **given,
        **moments,
    )


async def _all(desk: Desk, account_id: str) -> list[SubscriptionTold]:
    if account_id:
        return [admin_plans.told_subscription(one) for one in await desk.ledger.subscriptions_of(account_id)]
    found: list[SubscriptionTold] = []
    after: str | None = ""
    while after is not None:
        page = await admin_plans.list_subscriptions(desk, Paging(after=after, limit=_PAGE))
        found += page.items
        after = page.next
    return found


def _listed(found: list[SubscriptionTold]) -> str:
    rows = [
        (
            one.id,
            one.account,
            one.tier,
            one.status,
            one.source,
            shown(one.period_start),
            shown(one.period_end),
            shown(one.expires_at or one.cancel_at, "never"),
        )
        for one in found
    ]
    return table(("SUBSCRIPTION", "ACCOUNT", "TIER", "STATUS", "SOURCE", "PERIOD FROM", "UNTIL", "EXPIRES"), rows)
