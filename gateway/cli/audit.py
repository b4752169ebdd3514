"""Tell who did what to which account, newest first."""

import argparse

import msgspec

from gateway.cli.desk import as_json, typed, work_at_desk
from gateway.cli.moment import shown
from gateway.cli.table import table
from gateway.cli.verbs import add_file, add_json
from gateway.console.admin_accounts import audit
from gateway.console.admin_answers import AuditTold
from gateway.console.admin_bodies import AuditQuery
from gateway.console.admin_desk import Desk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of whom, and how much."""
    add_file(parser)
    parser.add_argument("account", metavar="ACCOUNT", nargs="?", default="", help="of every account, unless given")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="the latest N; 50 unless given")
    parser.add_argument("--before", type=int, metavar="ID", help="those before this row")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print it; the exit status."""
    return work_at_desk(args, _tell)


async def _tell(desk: Desk, args: argparse.Namespace) -> None:
    told = await audit(desk, typed(AuditQuery, account=args.account, before=args.before, limit=args.limit))
    rows = [
        (str(one.id), shown(one.at), one.who, one.source, one.action, one.account, _change(one)) for one in told.items
    ]
    print(as_json(told) if args.json else table(("ID", "AT", "WHO", "BY", "WHAT", "ACCOUNT", "CHANGE"), rows))


def _change(one: AuditTold) -> str:
    """What is other than before: all of it where nothing stood."""
    if not isinstance(one.after, dict):
        return "taken away"
    before = one.before if isinstance(one.before, dict) else {}
    changed = {name: value for name, value in one.after.items() if name not in before or before[name] != value}
    changed |= {name: None for name in before if name not in one.after}
    return msgspec.json.encode(changed).decode()
