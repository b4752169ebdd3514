"""Migrate the ledger: `tollway db upgrade`, `downgrade`, `current`.

Starting a gateway upgrades it by itself. Stop every gateway before a downgrade, and take a backup.
"""

import argparse
import asyncio

from gateway.cli.bad_input import BadInput
from gateway.cli.connections import deployed
from gateway.cli.verbs import add_verb
from gateway.ledger.migrate import downgrade, upgrade
from gateway.ledger.schema import HEAD, current_revision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    add_verb(verbs, "upgrade", "migrate up").add_argument("revision", nargs="?", default="head")
    down = add_verb(verbs, "downgrade", "migrate down")
    down.add_argument("revision", help="a revision, -1 for one step back, base for an empty database")
    down.add_argument("--yes", action="store_true", help="I have a backup: drop what the older schema can't hold")
    add_verb(verbs, "current", "show the ledger's revision and this program's")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    asyncio.run(_run(args))
    return 0


async def _run(args: argparse.Namespace) -> None:
    _, deployment = deployed(args.file)
    url = deployment.database_url
    if args.verb == "upgrade":
        await upgrade(url, args.revision)
    elif args.verb == "downgrade":
        if not args.yes:
            raise BadInput("a downgrade drops what the older schema can't hold: take a backup, then add --yes")
        await downgrade(url, args.revision)
    print(f"ledger {await current_revision(url) or 'empty'}, this program {HEAD}")
