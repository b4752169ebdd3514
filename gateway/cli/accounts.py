"""Create, list, show, move, suspend and resume accounts.

A change counts from the account's next request, on every gateway. Only `resume` may take a second: so long a worker
remembers that it refused a key.
"""

import argparse
import asyncio
import re
import time
from datetime import UTC, datetime

from gateway.cli.bad_input import BadInput
from gateway.cli.connections import Connections, connected
from gateway.cli.operator import operator
from gateway.cli.table import table
from gateway.cli.verbs import add_verb
from gateway.domain.accounts import Account

_PAGE = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    create = add_verb(verbs, "create", "make an account")
    create.add_argument("account", metavar="ACCOUNT", help="its id: letters, digits and . _ @ : -")
    create.add_argument("--tier", default="", help="the settings' default_tier, unless given")
    create.add_argument("--name", default="", help="for people")
    add_verb(verbs, "list", "list every account")
    for verb, text in (
        ("show", "show one account"),
        ("suspend", "refuse all its requests"),
        ("resume", "let a suspended account in again"),
    ):
        add_verb(verbs, verb, text).add_argument("account", metavar="ACCOUNT")
    move = add_verb(verbs, "set-tier", "move an account to another tier")
    move.add_argument("account", metavar="ACCOUNT")
    move.add_argument("tier", metavar="TIER")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    asyncio.run(_run(args))
    return 0


async def _run(args: argparse.Namespace) -> None:
    async with connected(args.file) as connections:
        if args.verb == "list":
            await _list(connections)
        elif args.verb == "show":
            print(_described(await connections.ledger.account(args.account)))
        elif args.verb == "create":
            print(_described(await _create(connections, args.account, args.tier, args.name)))
        else:
            account = await _change(connections, args)
            await connections.tell_gateways()
            print(_described(account))


async def _create(connections: Connections, account_id: str, tier: str, name: str) -> Account:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}", account_id):
        raise BadInput(f"{account_id!r} can't be an account's id: 1 to 128 letters, digits and . _ @ : -")
    tier = connections.tier(tier or connections.settings.default_tier).name
    return await connections.ledger.create_account(account_id, tier, name, _now_ms(), operator())


async def _change(connections: Connections, args: argparse.Namespace) -> Account:
    if args.verb == "set-tier":
        tier = connections.tier(args.tier).name
        return await connections.ledger.set_tier(args.account, tier, _now_ms(), operator())
    suspended = args.verb == "suspend"
    return await connections.ledger.set_suspended(args.account, suspended, _now_ms(), operator())


async def _list(connections: Connections) -> None:
    rows: list[tuple[str, str, str, str, str]] = []
    page = await connections.ledger.list_accounts(limit=_PAGE)
    while page:
        rows += [(one.id, one.tier, _state(one), _date(one.created_ms), one.name) for one in page]
        page = await connections.ledger.list_accounts(after=page[-1].id, limit=_PAGE)
    print(table(("ACCOUNT", "TIER", "STATE", "CREATED", "NAME"), rows))


def _described(account: Account) -> str:
    lines = [
        ("account", account.id),
        ("name", account.name),
        ("tier", account.tier),
        ("state", _state(account)),
        ("created", _date(account.created_ms)),
        ("version", str(account.version)),
    ]
    return "\n".join(f"{label:<9}{text}".rstrip() for label, text in lines)


def _state(account: Account) -> str:
    return "suspended" if account.suspended else "active"


def _date(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
