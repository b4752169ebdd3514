"""Moves a ledger between revisions of its schema with Alembic, each move one transaction: done, or as if never begun.

The history of what was applied is written in that transaction. Imported by name, and only when there is something to
migrate (`schema.py`).
"""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, delete, insert

from gateway.domain.faults import LEDGER_UNAVAILABLE, Fault
from gateway.ledger.database import Database
from gateway.ledger.schema import history, migrations, verify
from gateway.ledger.tables import schema_history
from gateway.settings.model import Database as Options

MIGRATIONS = Path(__file__).with_name("migrations")


async def upgrade(url: str, revision: str = "head", options: Options | None = None) -> None:
    """Migrate up to `revision`. Raises Fault(LEDGER_UNAVAILABLE), also for a ledger of a newer Tollway."""
    await _move(url, command.upgrade, revision, options)


async def downgrade(url: str, revision: str, options: Options | None = None) -> None:
    """Migrate down to `revision`, "-1" one step, "base" to an empty database. Raises Fault(LEDGER_UNAVAILABLE)."""
    await _move(url, command.downgrade, revision, options)


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file: where the migrations are and which connection they run on."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


async def _move(url: str, move: Callable[[Config, str], None], revision: str, options: Options | None) -> None:
    database = Database.open(url, options)
    try:
        async with database.migrating() as connection:
            await connection.run_sync(_moved, move, revision)
    except CommandError as error:
        text = f"the ledger's schema can't be moved to {revision!r} by this version of Tollway: {error}"
        raise Fault(LEDGER_UNAVAILABLE, text) from error
    finally:
        await database.close()


def _moved(connection: Connection, move: Callable[[Config, str], None], revision: str) -> None:
    config = configuration(connection)
    verify(history(connection)[1])
    schema_history.create(connection, checkfirst=True)
    move(config, revision)
    now, applied = history(connection)
    steps = [step.revision for step in ScriptDirectory.from_config(config).iterate_revisions(now or "base", "base")]
    gone = applied.keys() - steps
    if gone:
        connection.execute(delete(schema_history).where(schema_history.c.revision.in_(gone)))
    now_ms, known = time.time_ns() // 1_000_000, migrations()
    new = [msgspec.structs.replace(known[step], applied_ms=now_ms) for step in steps if step not in applied]
    if new:
        connection.execute(insert(schema_history), [msgspec.structs.asdict(one) for one in new])
