"""The ledger's schema: migrations go both ways, agree with the tables, and stay off a warm start."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from gateway.domain.faults import Fault
from gateway.ledger.migrate import configuration, downgrade, upgrade
from gateway.ledger.schema import HEAD, current_revision, ensure_schema
from gateway.ledger.tables import metadata
from tests.support.ledgers import url_of


def _schema(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'alembic_version'")
        return {row[0] for row in rows}


def _execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def test_head_is_alembics_own() -> None:
    """`ensure_schema` trusts HEAD: were it behind, a new migration would never run at a user's start."""
    assert ScriptDirectory.from_config(configuration()).get_current_head() == HEAD


def test_migrations_build_the_tables_that_the_code_uses(ledger_path: Path) -> None:
    """Migrations and `tables.py` say the same, or a fresh install and an upgraded one would differ."""
    engine = create_engine(f"sqlite:///{ledger_path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_every_table_is_strict(ledger_path: Path) -> None:
    """A count that turned into a float would lose tokens unseen; STRICT tables refuse it."""
    tables = [sql for sql in _schema(ledger_path) if sql.startswith("CREATE TABLE") and "sqlite_sequence" not in sql]

    assert len(tables) == len(metadata.tables)
    assert all("STRICT" in sql for sql in tables)


async def test_down_and_up_again_ends_where_it_began(ledger_path: Path) -> None:
    """A7, E9: an operator who has to go back can, and forward again, to the very same schema."""
    before, url = _schema(ledger_path), url_of(ledger_path)

    await downgrade(url, "base")
    assert await current_revision(url) is None
    assert _schema(ledger_path) - {"CREATE TABLE sqlite_sequence(name,seq)"} == set()

    await upgrade(url)
    assert await current_revision(url) == HEAD
    assert _schema(ledger_path) == before


async def test_a_newer_ledger_is_refused_and_left_alone(ledger_path: Path) -> None:
    """An old program that met a newer ledger and wrote to it would harm every account in it."""
    _execute(ledger_path, "UPDATE alembic_version SET version_num = '9999'")
    before = _schema(ledger_path)

    with pytest.raises(Fault, match="9999") as raised:
        await ensure_schema(url_of(ledger_path))

    assert raised.value.kind.code == "ledger_unavailable"
    assert _schema(ledger_path) == before
    assert await current_revision(url_of(ledger_path)) == "9999"


async def test_a_failed_migration_leaves_nothing_behind(ledger_path: Path) -> None:
    """A migration that dies half-way must not leave a ledger that neither version can read."""
    url = url_of(ledger_path)
    await downgrade(url, "base")
    _execute(ledger_path, "CREATE TABLE set_aside (in_the_way INTEGER)")  # the last table that 0001 makes

    with pytest.raises(Fault, match="set_aside"):
        await ensure_schema(url)

    assert await current_revision(url) is None
    assert not any("accounts" in sql for sql in _schema(ledger_path))


async def test_a_file_that_is_no_database_is_a_clear_fault(tmp_path: Path) -> None:
    """An operator who points at the wrong file is told so, and the file is not touched."""
    path = tmp_path / "notes.txt"
    path.write_text("dear diary " * 100)

    with pytest.raises(Fault, match="not a database"):
        await ensure_schema(url_of(path))

    assert path.read_text().startswith("dear diary")


def test_a_warm_start_does_not_load_alembic(ledger_path: Path) -> None:
    """Every worker starts through `ensure_schema`; Alembic's import would add 190 ms to each."""
    code = (
        "import asyncio, sys; from gateway.ledger.schema import ensure_schema;"
        f"asyncio.run(ensure_schema({url_of(ledger_path)!r}));"
        "sys.exit('alembic' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_many_processes_start_at_once(tmp_path: Path) -> None:
    """Workers that come up together on a fresh directory all start: one migrates, the others wait for it."""
    url = url_of(tmp_path / "new.db")
    code = f"import asyncio; from gateway.ledger.schema import ensure_schema; asyncio.run(ensure_schema({url!r}))"

    starting = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=asyncio.subprocess.PIPE)
        for _ in range(4)
    ]
    ends = [(await process.communicate())[1].decode() for process in starting]

    assert [process.returncode for process in starting] == [0, 0, 0, 0], ends
    assert await current_revision(url) == HEAD
