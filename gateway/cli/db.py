"""The ledger's schema: `tollway db upgrade`, `downgrade`, `status`; and what it holds: `verify`, `set-aside`.

Starting a gateway upgrades it by itself. Stop every gateway before a downgrade, and take a backup.
"""

import argparse
import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

from gateway.cli.bad_input import BadInput
from gateway.cli.connections import deployed
from gateway.cli.set_aside import list_or_replay
from gateway.cli.table import table
from gateway.cli.verbs import add_verb
from gateway.cli.verify import verify
from gateway.ledger.database import Database
from gateway.ledger.migrate import downgrade, upgrade
from gateway.ledger.schema import HEAD, Migration, ensure_schema, migrations, read_history


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    add_verb(verbs, "upgrade", "migrate up").add_argument("revision", nargs="?", default="head")
    down = add_verb(verbs, "downgrade", "migrate down")
    down.add_argument("revision", help="a revision, -1 for one step back, base for an empty database")
    down.add_argument("--yes", action="store_true", help="I have a backup: drop what the older schema can't hold")
    add_verb(verbs, "status", "show the ledger's revision, this program's, and what was applied when")
    check = add_verb(
        verbs, "verify", "hold live counters, sums and events against each other; status 1 where they differ"
    )
    aside = add_verb(verbs, "set-aside", "list usage that could not be read as events")
    aside.add_argument("--replay", action="store_true", help="try it again first, as after an upgrade")
    check.add_argument("--repair", action="store_true", help="mend what differs, while the gateway runs")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    if args.verb == "verify":
        return asyncio.run(verify(args.file, repair=args.repair))
    if args.verb == "set-aside":
        asyncio.run(list_or_replay(args.file, replay=args.replay))
        return 0
    asyncio.run(_run(args))
    return 0


async def _run(args: argparse.Namespace) -> None:
    settings, deployment = deployed(args.file)
    url = deployment.database_url
    if args.verb == "upgrade" and args.revision == "head":
        await ensure_schema(url, settings.database)
    elif args.verb == "upgrade":
        await upgrade(url, args.revision, settings.database)
    elif args.verb == "downgrade":
        if not args.yes:
            raise BadInput("a downgrade drops what the older schema can't hold: take a backup, then add --yes")
        await downgrade(url, args.revision, settings.database)
    database = Database.open(url, settings.database)
    try:
        revision, applied = await read_history(database)
    finally:
        await database.close()
    if args.verb == "status":
        print(_status(applied))
    print(f"ledger {revision or 'empty'}, this program {HEAD}")


def _status(applied: Mapping[str, Migration]) -> str:
    """A line for each migration that this program knows or the ledger went through."""
    known = migrations()
    rows = []
    for revision in sorted(known.keys() | applied.keys()):
        one, done = known.get(revision), applied.get(revision)
        state = "to come" if done is None else "not of this program" if one is None else "applied"
        if one is not None and done is not None and one.checksum != done.checksum:
            state = "changed since it was applied"
        shown = done or known[revision]
        moment = datetime.fromtimestamp(shown.applied_ms / 1000, UTC).isoformat(" ", "seconds") if done else ""
        rows.append((shown.name, state, moment, shown.checksum[:12]))
    return table(("migration", "state", "applied", "checksum"), rows)
