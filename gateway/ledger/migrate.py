"""Moves a ledger between revisions of its schema with Alembic, each move one transaction: done, or as if never begun.

Imported by name, and only when there is something to migrate (`schema.py`).
"""

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from gateway.domain.faults import LEDGER_UNAVAILABLE, Fault
from gateway.ledger.database import Database

MIGRATIONS = Path(__file__).with_name("migrations")


async def upgrade(url: str, revision: str = "head") -> None:
    """Migrate up to `revision`. Raises Fault(LEDGER_UNAVAILABLE), also for a ledger of a newer Tollway."""
    await _move(url, command.upgrade, revision)


async def downgrade(url: str, revision: str) -> None:
    """Migrate down to `revision`, "-1" one step, "base" to an empty database. Raises Fault(LEDGER_UNAVAILABLE)."""
    await _move(url, command.downgrade, revision)


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file: where the migrations are and which connection they run on."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


async def _move(url: str, move: Callable[[Config, str], None], revision: str) -> None:
    database = Database.open(url)
    try:
        async with database.writing() as connection:
            await connection.run_sync(lambda sync: move(configuration(sync), revision))
    except CommandError as error:
        text = f"the ledger's schema can't be moved to {revision!r} by this version of Tollway: {error}"
        raise Fault(LEDGER_UNAVAILABLE, text) from error
    finally:
        await database.close()
