"""The ledger's schema: migrations go both ways, agree with the tables, and stay off a warm start."""

import ast
import asyncio
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, LargeBinary, MetaData, String, Table, insert, inspect, text

from gateway.domain.faults import Fault
from gateway.ledger.database import Database
from gateway.ledger.ledger import Ledger
from gateway.ledger.migrate import configuration, downgrade, upgrade
from gateway.ledger.schema import HEAD, VERSIONS, current_revision, ensure_schema, migrations
from gateway.ledger.tables import metadata
from tests.support.ledgers import rows_of, url_of


async def _schema(url: str) -> set[str]:
    """Every table, column, key and index, as far as each database tells them."""
    if url.startswith("sqlite"):
        made = (
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT IN ('alembic_version', 'sqlite_sequence')"
        )
        return {row[0] for row in rows_of(url, made) if "schema_history" not in row[0]}
    columns = (
        "SELECT table_name || '.' || column_name || ' ' || data_type || is_nullable FROM information_schema.columns "
        "WHERE table_schema = 'public'"
    )
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
    found = {row[0] for row in (*rows_of(url, columns), *rows_of(url, indexes))}
    return {one for one in found if "alembic_version" not in one and "schema_history" not in one}


def test_head_is_alembics_own() -> None:
    """`ensure_schema` trusts HEAD: were it behind, a new migration would never run at a user's start."""
    assert ScriptDirectory.from_config(configuration()).get_current_head() == HEAD


async def test_migrations_build_the_tables_that_the_code_uses(ledger: Ledger) -> None:
    """Migrations and `tables.py` say the same, or a fresh install and an upgraded one would differ."""

    def differences(connection: Connection) -> list[Any]:
        options = {"include_name": lambda name, kind, _: kind != "table" or not name.startswith("events_")}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    async with ledger.reading() as connection:
        assert await connection.run_sync(differences) == []


def test_every_table_is_strict(ledger_path: Path) -> None:
    """A count that turned into a float would lose tokens unseen; STRICT tables refuse it."""
    made = rows_of(url_of(ledger_path), "SELECT name, sql FROM sqlite_master WHERE type = 'table'")
    tables = {name: sql for name, sql in made if name not in {"sqlite_sequence", "alembic_version"}}

    assert tables.keys() == metadata.tables.keys()
    assert all("STRICT" in sql for sql in tables.values())


async def test_down_and_up_again_ends_where_it_began(bare_url: str) -> None:
    """A7, E9: an operator who has to go back can, and forward again, to the very same schema."""
    await upgrade(bare_url)
    before = await _schema(bare_url)
    assert before

    await downgrade(bare_url, "base")
    assert await current_revision(bare_url) is None
    assert await _schema(bare_url) == set()
    assert rows_of(bare_url, "SELECT * FROM schema_history") == []

    await upgrade(bare_url)
    assert await current_revision(bare_url) == HEAD
    assert await _schema(bare_url) == before


async def _rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """What each table that there is holds, in no order of its own."""
    database = Database.open(url)
    try:
        async with database.reading() as connection:
            names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
            tables = [table for name, table in metadata.tables.items() if name in names and name != "schema_history"]
            return {
                table.name: sorted(map(tuple, await connection.execute(text(f"SELECT * FROM {table.name}"))), key=repr)
                for table in tables
            }
    finally:
        await database.close()


async def _fill(url: str, already: Collection[str]) -> None:
    """Three rows into each table but those that have some, as the database has it at its revision."""
    database = Database.open(url)

    def tables(connection: Connection) -> list[Table]:
        found = MetaData()
        found.reflect(connection, only=lambda name, _: name in metadata.tables and name != "schema_history")
        return [table for table in found.sorted_tables if table.name not in already]

    try:
        async with database.writing() as connection:
            for table in await connection.run_sync(tables):
                rows = [{column.name: _value(column, number) for column in table.columns} for number in (1, 2, 3)]
                await connection.execute(insert(table), rows)
    finally:
        await database.close()


def _value(column: Column[Any], number: int) -> Any:
    if isinstance(column.type, LargeBinary):
        return b"%d" % number
    return str(number) if isinstance(column.type, String) else number


def _kept(
    after: dict[str, list[tuple[Any, ...]]], before: dict[str, list[tuple[Any, ...]]]
) -> dict[str, list[tuple[Any, ...]]]:
    """Of the tables that stood before, the rows without the columns that came since, which are empty."""
    widths = {name: len(rows[0]) for name, rows in before.items()}
    assert all(value in {None, ""} for name, width in widths.items() for row in after[name] for value in row[width:])
    return {name: [row[:width] for row in after[name]] for name, width in widths.items()}


async def test_every_step_goes_up_and_down_with_rows_in_it(bare_url: str) -> None:
    """A7: each migration is taken up, down and up again over rows in every table. What a step down does not drop, and
    what stood before a step up, is the same afterwards: an operator who goes back for an hour loses no account.
    """  # noqa: D205
    at_each: list[dict[str, list[tuple[Any, ...]]]] = [{}]
    for revision in migrations():
        await upgrade(bare_url, revision)
        before = await _rows(bare_url)
        assert _kept(before, at_each[-1]) == at_each[-1]
        await _fill(bare_url, at_each[-1])
        at_each.append(await _rows(bare_url))
        assert all(at_each[-1].values())

        await downgrade(bare_url, "-1")
        assert await _rows(bare_url) == at_each[-2]
        await upgrade(bare_url, revision)
        assert _kept(await _rows(bare_url), at_each[-2]) == at_each[-2]
        await _fill(bare_url, at_each[-2])

    assert at_each[-1].keys() == metadata.tables.keys() - {"schema_history"}
    await downgrade(bare_url, "base")
    assert await _rows(bare_url) == {}


async def test_a_migration_takes_nothing_from_older_workers() -> None:
    """A7: gateways of the last version run on while the first of the new ones migrates. A step up that drops, renames
    or narrows what they use would break every request of theirs, so none does.
    """  # noqa: D205
    taking = {"drop_table", "drop_column", "drop_constraint", "rename_table", "alter_column", "batch_alter_table"}
    for file in VERSIONS.glob("r*.py"):
        (up,) = [node for node in ast.parse(file.read_text()).body if getattr(node, "name", "") == "upgrade"]
        used = {node.attr for node in ast.walk(up) if isinstance(node, ast.Attribute)}
        assert not used & taking, file.name


async def test_the_history_tells_what_was_applied(bare_url: str) -> None:
    """E9: name, time and checksum of each migration, so that support knows what a ledger has been through."""
    await ensure_schema(bare_url)

    rows = rows_of(bare_url, "SELECT revision, name, checksum, applied_ms FROM schema_history ORDER BY revision")
    assert [row[:3] for row in rows] == [(one.revision, one.name, one.checksum) for one in migrations().values()]
    assert all(abs(row[3] - time.time_ns() // 1_000_000) < 60_000 for row in rows)
    steps = ScriptDirectory.from_config(configuration()).walk_revisions()
    assert {step.revision: Path(step.path).stem for step in steps} == {
        one.revision: f"r{one.name}" for one in migrations().values()
    }


async def test_a_migration_that_changed_after_it_was_applied_is_refused(ledger_url: str) -> None:
    """E9: two ledgers of one revision with different tables are found out at the start, not by a lost event."""
    rows_of(ledger_url, "UPDATE schema_history SET checksum = 'other' WHERE revision = '0001'", "SELECT 1")

    for start in (ensure_schema(ledger_url), upgrade(ledger_url), downgrade(ledger_url, "base")):
        with pytest.raises(Fault, match="0001_accounts_and_usage") as raised:
            await start
        assert raised.value.kind.code == "ledger_unavailable"


async def test_a_ledger_from_before_the_history_gets_one(ledger_url: str) -> None:
    """A ledger that was made before checksums were kept starts like any other, and has them from then on."""
    rows_of(ledger_url, "DROP TABLE schema_history", "SELECT 1")

    await ensure_schema(ledger_url)

    assert rows_of(ledger_url, "SELECT revision FROM schema_history ORDER BY 1") == [(one,) for one in migrations()]


async def test_a_newer_ledger_is_refused_and_left_alone(ledger_url: str) -> None:
    """An old program that met a newer ledger and wrote to it would harm every account in it."""
    rows_of(ledger_url, "UPDATE alembic_version SET version_num = '9999'", "SELECT 1")
    before = await _schema(ledger_url)

    with pytest.raises(Fault, match="9999") as raised:
        await ensure_schema(ledger_url)

    assert raised.value.kind.code == "ledger_unavailable"
    assert await _schema(ledger_url) == before
    assert await current_revision(ledger_url) == "9999"


async def test_a_failed_migration_leaves_nothing_behind(bare_url: str) -> None:
    """A migration that dies half-way must not leave a ledger that neither version can read."""
    # The last table that 0001 makes.
    rows_of(bare_url, "CREATE TABLE set_aside (in_the_way INTEGER)", "SELECT 1")

    with pytest.raises(Fault, match="set_aside"):
        await ensure_schema(bare_url)

    assert await current_revision(bare_url) is None
    assert not any("accounts" in sql for sql in await _schema(bare_url))


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


async def test_many_processes_start_at_once(bare_url: str) -> None:
    """Workers that come up together on a fresh database all start: one migrates, the others wait for it."""
    code = f"import asyncio; from gateway.ledger.schema import ensure_schema; asyncio.run(ensure_schema({bare_url!r}))"

    starting = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=asyncio.subprocess.PIPE)
        for _ in range(4)
    ]
    ends = [(await process.communicate())[1].decode() for process in starting]

    assert [process.returncode for process in starting] == [0, 0, 0, 0], ends
    assert await current_revision(bare_url) == HEAD
