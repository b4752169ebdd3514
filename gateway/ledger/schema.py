"""Which schema this code speaks, and how a database comes to it.

A start finds the schema right nearly always and pays one small read for it; Alembic (190 ms to import) is loaded only
when there is something to migrate. A ledger that is newer than the code is refused, never touched; so is one that went
through a migration whose file is no longer what it was, since nobody can tell then what its tables are.
"""

import hashlib
import importlib
import time
from pathlib import Path

import msgspec
from sqlalchemy import Connection, inspect, select, text

from gateway.domain.faults import LEDGER_UNAVAILABLE, Fault
from gateway.ledger.database import Database
from gateway.ledger.partitions import make_partitions
from gateway.ledger.tables import schema_history
from gateway.settings.model import Database as Options

HEAD = "0006"
"""The newest migration; a test keeps it equal to Alembic's head."""

VERSIONS = Path(__file__).parent / "migrations" / "versions"


class Migration(msgspec.Struct, frozen=True):
    """One step. `applied_ms` is 0 for one that the ledger has not been through."""

    revision: str
    name: str
    checksum: str
    applied_ms: int = 0


async def ensure_schema(url: str, options: Options | None = None) -> None:
    """Bring the ledger at `url` to HEAD. Safe for many processes at once: the first migrates, the rest find it done.

    Raises Fault(LEDGER_UNAVAILABLE) where it can't be opened, is at a revision that this code doesn't know, or went
    through a migration that is not the one of this code.
    """
    database = Database.open(url, options)
    try:
        revision, applied = await read_history(database)
        if revision != HEAD or HEAD not in applied:
            # By name, as this one import is what a warm start must not pay for.
            migrate = importlib.import_module("gateway.ledger.migrate")
            await migrate.upgrade(url, options=options)
        else:
            verify(applied)
        await make_partitions(database, time.time_ns() // 1_000_000)
    finally:
        await database.close()


async def current_revision(url: str) -> str | None:
    """The revision that the ledger is at; None for an empty one. Raises Fault(LEDGER_UNAVAILABLE)."""
    database = Database.open(url)
    try:
        return (await read_history(database))[0]
    finally:
        await database.close()


async def read_history(database: Database) -> tuple[str | None, dict[str, Migration]]:
    """The revision that the ledger is at, None for an empty one, and what it went through, by revision."""
    async with database.reading() as connection:
        return await connection.run_sync(history)


def history(connection: Connection) -> tuple[str | None, dict[str, Migration]]:
    """As `read_history`, on a connection."""
    tables = inspect(connection)
    revision: str | None = None
    if tables.has_table("alembic_version"):
        revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if not tables.has_table(schema_history.name):
        return revision, {}
    rows = connection.execute(select(schema_history))
    return revision, {row[0]: Migration(*row) for row in rows}


def migrations() -> dict[str, Migration]:
    """The steps that this code knows, by revision, oldest first."""
    known: dict[str, Migration] = {}
    for file in sorted(VERSIONS.glob("r*.py")):
        name = file.stem.removeprefix("r")
        revision = name.partition("_")[0]
        known[revision] = Migration(revision, name, hashlib.sha256(file.read_bytes()).hexdigest())
    return known


def verify(applied: dict[str, Migration]) -> None:
    """Raise Fault(LEDGER_UNAVAILABLE) unless each migration that was applied is the one of this code."""
    known = migrations()
    changed = [one.name for one in applied.values() if known.get(one.revision, one).checksum != one.checksum]
    if changed:
        text = f"the ledger went through migration {', '.join(changed)}, whose file has changed since: put it back"
        raise Fault(LEDGER_UNAVAILABLE, f"{text} as it was released, and write a new migration for what is to change")
