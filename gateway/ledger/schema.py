"""Which schema this code speaks, and how a database comes to it.

A start finds the schema right nearly always and pays one small read for it; Alembic (190 ms to import) is loaded only
when there is something to migrate. A ledger that is newer than the code is refused, never touched.
"""

import importlib

from sqlalchemy import Connection, inspect, text

from gateway.ledger.database import Database

HEAD = "0002"
"""The newest migration; a test keeps it equal to Alembic's head."""


async def ensure_schema(url: str) -> None:
    """Bring the ledger at `url` to HEAD. Safe for many processes at once: the first migrates, the rest find it done.

    Raises Fault(LEDGER_UNAVAILABLE) where it can't be opened, or is at a revision that this code doesn't know.
    """
    if await current_revision(url) != HEAD:
        # By name, as this one import is what a warm start must not pay for.
        migrate = importlib.import_module("gateway.ledger.migrate")
        await migrate.upgrade(url)


async def current_revision(url: str) -> str | None:
    """The revision that the ledger is at; None for an empty one. Raises Fault(LEDGER_UNAVAILABLE)."""
    database = Database.open(url)
    try:
        async with database.reading() as connection:
            return await connection.run_sync(_revision)
    finally:
        await database.close()


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision
