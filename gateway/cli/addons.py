"""List and add add-ons: more of a limit, for a span of time or for good. What is taken back is an amount below 0."""

import argparse
from collections.abc import Sequence

from gateway.cli.desk import typed, work_at_desk
from gateway.cli.moment import read, shown
from gateway.cli.operator import operator
from gateway.cli.table import table
from gateway.cli.verbs import add_verb
from gateway.console import admin_plans
from gateway.console.admin_answers import AddonTold
from gateway.console.admin_bodies import NewAddon
from gateway.console.admin_desk import Desk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    add_verb(verbs, "list", "list an account's add-ons").add_argument("account", metavar="ACCOUNT")
    add = add_verb(verbs, "add", "give an account more of a unit")
    add.add_argument("account", metavar="ACCOUNT")
    add.add_argument("unit", metavar="UNIT", help="tokens, requests, input_tokens or output_tokens")
    add.add_argument("amount", metavar="AMOUNT", type=int)
    add.add_argument("--id", help="makes it safe to do again: the same id adds nothing")
    add.add_argument("--window", help="which limit it raises; what is mended by paying, unless given")
    add.add_argument("--begins-at", metavar="MOMENT")
    add.add_argument("--ends-at", metavar="MOMENT")
    add.add_argument("--note", default="", help="for people")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    return work_at_desk(args, _list if args.verb == "list" else _add)


async def _list(desk: Desk, args: argparse.Namespace) -> None:
    print(_listed((await admin_plans.list_addons(desk, args.account)).items))


async def _add(desk: Desk, args: argparse.Namespace) -> None:
    asked = typed(
        NewAddon,
        unit=args.unit,
        amount=args.amount,
        id=args.id,
        window=args.window,
        begins_at=read(args.begins_at),
        ends_at=read(args.ends_at),
        note=args.note,
    )
    told = await admin_plans.add_addon(desk, args.account, asked, operator())
    if not told.added:
        print(f"{told.id} was there already, as below; nothing is added")
    print(_listed([told]))


def _listed(found: Sequence[AddonTold]) -> str:
    rows = [
        (
            one.id,
            one.unit if one.window is None else f"{one.unit}/{one.window}",
            one.amount,
            shown(one.begins_at, "at once"),
            shown(one.ends_at, "never"),
            one.source,
            one.note,
        )
        for one in found
    ]
    return table(("ADD-ON", "OF", "AMOUNT", "BEGINS", "ENDS", "SOURCE", "NOTE"), rows)
