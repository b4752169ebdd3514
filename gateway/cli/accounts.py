"""Create, list, show, explain, move, suspend and resume accounts; look all of them over.

A change counts from the account's next request, on every gateway. Only `resume` may take a second: so long a worker
remembers that it refused a key.
"""

import argparse

from gateway.cli.desk import as_json, typed, work_at_desk
from gateway.cli.explained import described
from gateway.cli.moment import shown
from gateway.cli.operator import operator
from gateway.cli.table import table
from gateway.cli.upkeep import backfill, verify
from gateway.cli.verbs import add_json, add_verb
from gateway.console import admin_accounts
from gateway.console.admin_answers import AccountTold
from gateway.console.admin_bodies import NewAccount, Paging, TierChange
from gateway.console.admin_desk import Desk
from gateway.console.explain import explain

_PAGE = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    create = add_verb(verbs, "create", "make an account")
    create.add_argument("account", metavar="ACCOUNT", help="its id: letters, digits and . _ @ : -")
    create.add_argument("--tier", help="the settings' default_tier, unless given")
    create.add_argument("--name", default="", help="for people")
    add_verb(verbs, "list", "list every account")
    for verb, text in (
        ("show", "show one account"),
        ("suspend", "refuse all its requests"),
        ("resume", "let a suspended account in again"),
    ):
        add_verb(verbs, verb, text).add_argument("account", metavar="ACCOUNT")
    why = add_verb(verbs, "explain", "tell what an account may do right now, why, and what a request would be told")
    why.add_argument("account", metavar="ACCOUNT")
    add_json(why)
    fill = add_verb(verbs, "backfill", "give every account whose tier the settings lack the default tier")
    fill.add_argument("--dry-run", action="store_true", help="tell what would be done, and do nothing")
    add_verb(verbs, "verify", "tell what is wrong with any account; the exit status is 1 where something is")
    move = add_verb(verbs, "set-tier", "move an account to another tier")
    move.add_argument("account", metavar="ACCOUNT")
    move.add_argument("tier", metavar="TIER")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    return work_at_desk(args, _do)


async def _do(desk: Desk, args: argparse.Namespace) -> int:
    if args.verb == "verify":
        return await verify(desk)
    if args.verb == "list":
        await _list(desk)
    elif args.verb == "backfill":
        await backfill(desk, dry_run=args.dry_run)
    elif args.verb == "explain":
        told = await explain(desk, args.account)
        print(as_json(told) if args.json else described(told))
    else:
        print(_described(await _account(desk, args)))
    return 0


async def _account(desk: Desk, args: argparse.Namespace) -> AccountTold:
    match args.verb:
        case "show":
            return await admin_accounts.get_account(desk, args.account)
        case "create":
            asked = typed(NewAccount, id=args.account, tier=args.tier, name=args.name)
            return await admin_accounts.create_account(desk, asked, operator())
        case "set-tier":
            return await admin_accounts.set_tier(desk, args.account, typed(TierChange, tier=args.tier), operator())
        case _:
            return await admin_accounts.set_suspended(desk, args.account, args.verb == "suspend", operator())


async def _list(desk: Desk) -> None:
    rows: list[tuple[str, str, str, str, str]] = []
    after: str | None = ""
    while after is not None:
        page = await admin_accounts.list_accounts(desk, Paging(after=after, limit=_PAGE))
        rows += [(one.id, one.tier, _state(one), shown(one.created_at), one.name) for one in page.items]
        after = page.next
    print(table(("ACCOUNT", "TIER", "STATE", "CREATED", "NAME"), rows))


def _described(account: AccountTold) -> str:
    lines = [
        ("account", account.id),
        ("name", account.name),
        ("tier", account.tier),
        ("state", _state(account)),
        ("created", shown(account.created_at)),
        ("version", str(account.version)),
    ]
    return "\n".join(f"{label:<9}{text}".rstrip() for label, text in lines)


def _state(account: AccountTold) -> str:
    return "suspended" if account.suspended else "active"
