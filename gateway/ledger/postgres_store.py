"""A ledger in PostgreSQL: a pool of connections, and whole batches in one statement each.

Rows are written in the order of their keys, so that flushers that write at once wait for each other and never in a
circle. Every transaction has a time-out for each statement and for each lock; every connection has one to be made.
A connection that died is replaced when it is next asked for, so that a restart of the server needs none of ours.
Behind a PgBouncer that pools transactions (`transaction_pooling`) nothing outlives a transaction: no named statement,
no setting. Imported by name, where the URL is PostgreSQL's: asyncpg costs a start on SQLite nothing.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import msgspec
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    LargeBinary,
    Table,
    TableValuedAlias,
    Text,
    bindparam,
    column,
    event,
    func,
    select,
)
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql.dml import ReturningInsert

from gateway.domain.usage import UsageEvent
from gateway.ledger.store import Rows
from gateway.ledger.tables import SUMS, events, storable_text
from gateway.settings.model import Database as Options

_NETWORK_S = 5.0
"""How much longer than the server's own time-out an answer is waited for, before the connection is taken for dead."""
_NEAR_MS = 86_400_000
"""How far two times of admission of one request may be apart: as far as a gateway's clock from the limiter's."""
_MIGRATION_LOCK = 0x746F6C6C776179
_MIGRATION_WAIT = "60s"
_ARRAYS: dict[type, ARRAY[Any]] = {str: ARRAY(Text), int: ARRAY(BigInteger), bytes: ARRAY(LargeBinary)}


class Dialect(PGDialect_asyncpg):
    """SQLAlchemy's dialect without what it asks of a new connection for JSON, which no table here has."""

    supports_statement_cache = True

    async def setup_asyncpg_json_codec(self, conn: Any) -> None:
        """Nothing."""

    async def setup_asyncpg_jsonb_codec(self, conn: Any) -> None:
        """Nothing."""

    def do_close(self, dbapi_connection: Any) -> None:
        """Drop a connection without waiting for the server's end of it: a server that stands still has none."""
        dbapi_connection.driver_connection.terminate()

    def do_terminate(self, dbapi_connection: Any) -> None:
        """The same for a connection whose statement failed, was cancelled or timed out."""
        dbapi_connection.driver_connection.terminate()


registry.register("postgresql.tollway", __name__, "Dialect")


class PostgresStore:
    """A PostgreSQL database by its URL, as libpq and asyncpg read it: `sslmode`, `sslrootcert`, `host` and so on."""

    single_writer = False
    failures: tuple[type[BaseException], ...] = (asyncpg.PostgresError, asyncpg.InterfaceError)

    def __init__(self, url: str, options: Options) -> None:
        self.writer = _engine(url, options)
        self.reader = self.writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def storable(self, events: Sequence[UsageEvent]) -> Sequence[UsageEvent]:
        """The events, none of their texts with a zero character."""
        return [_storable(event) if "\0" in "".join(_texts(event)) else event for event in events]

    async def insert_events(self, connection: AsyncConnection, events: Sequence[UsageEvent]) -> list[str]:
        """Insert those that are new; their request ids.

        The key of a partitioned table holds the column that it is partitioned by, so a request id is unique only
        together with its `admitted_ms`. A batch that is read again has the same one, and the key decides, among any
        number of flushers. The event that a reap takes from a hold has the gateway's time of admission and not the
        limiter's; so ids that stand already are looked for near that time, too (`docs/decisions/0013-*`).
        """
        ordered = sorted(msgspec.to_builtins(events), key=lambda row: str(row[0]))
        inserted = await connection.execute(_TAKING, dict(zip(_PARAMETERS, zip(*ordered, strict=True), strict=True)))
        return list(inserted.scalars())

    async def add_sums(self, connection: AsyncConnection, table: Table, rows: Rows) -> None:
        """Insert rows of sums, or add them to those that stand."""
        row = _unnested(table)
        sums = {name: table.c[name] + row.excluded[name] for name in SUMS}
        adding = row.on_conflict_do_update(index_elements=table.primary_key, set_=sums)
        await connection.execute(adding, _columns(table, rows))

    async def insert_new(self, connection: AsyncConnection, table: Table, rows: Rows) -> None:
        """Insert rows, save those whose keys are taken."""
        await connection.execute(_unnested(table).on_conflict_do_nothing(), _columns(table, rows))

    async def begin_migration(self, connection: AsyncConnection) -> None:
        """Wait for the lock that every migrating process takes; it goes with the transaction."""
        await connection.execute(_local(statement_timeout="0", lock_timeout=_MIGRATION_WAIT))
        await connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))


def _engine(url: str, options: Options) -> AsyncEngine:
    timeouts = {
        "statement_timeout": str(int(options.statement_timeout_s * 1000)),
        "lock_timeout": str(int(options.lock_timeout_s * 1000)),
    }
    named = "application_name" in parse_qs(urlsplit(url).query)
    session = {} if named else {"application_name": "tollway"}
    caches: dict[str, Any] = {}
    if options.transaction_pooling:
        caches = {"statement_cache_size": 0}
    else:
        session |= timeouts
    connect = partial(
        asyncpg.connect,
        url,
        timeout=options.connect_timeout_s,
        command_timeout=options.statement_timeout_s + _NETWORK_S,
        server_settings=session,
        **caches,
    )
    arguments: dict[str, Any] = {"async_creator_fn": connect}
    if options.transaction_pooling:
        # An unnamed statement lives until the next one, on the connection that the transaction has to itself.
        arguments |= {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}
    engine = create_async_engine(
        "postgresql+tollway://",
        connect_args=arguments,
        isolation_level="READ COMMITTED",
        pool_size=options.pool_size,
        max_overflow=0,
        pool_timeout=options.connect_timeout_s,
    )

    @event.listens_for(engine.sync_engine, "checkout")
    def replace_dead(connection: Any, _record: object, _proxy: object) -> None:
        if connection.driver_connection.is_closed():
            raise DisconnectionError

    if options.transaction_pooling:

        @event.listens_for(engine.sync_engine, "begin")
        def bound(connection: Connection) -> None:
            connection.execute(_local(**timeouts))

    return engine


def _local(**values: str) -> Any:
    """Settings for the rest of the transaction."""
    return select(*[func.set_config(name, value, True) for name, value in values.items()])


def _texts(event: UsageEvent) -> tuple[str, ...]:
    return (
        event.request_id,
        event.account_id,
        event.key_id,
        event.tier,
        event.route,
        event.endpoint,
        event.model,
        event.upstream,
        event.conversation_id,
        event.message_id,
    )


def _storable(event: UsageEvent) -> UsageEvent:
    fields = msgspec.structs.asdict(event)
    texts = {name: storable_text(value) for name, value in fields.items() if isinstance(value, str) and "\0" in value}
    return msgspec.structs.replace(event, **texts)


def _unnested(table: Table) -> Insert:
    """An insert of rows that come as one array for each column, so that it is one statement whatever their number."""
    return insert(table).from_select(table.columns.keys(), select(*_given(table).c))


def _given(table: Table) -> TableValuedAlias:
    """The rows that come as arrays, as a table."""
    arrays = [bindparam(f"all_{column.name}", type_=_ARRAYS[column.type.python_type]) for column in table.columns]
    columns: list[Any] = [column(one.name, one.type) for one in table.columns]
    return func.unnest(*arrays).table_valued(*columns, name="given").render_derived()


def _taking() -> ReturningInsert[Any]:
    """The insert of events that returns the ids of those that were new."""
    given = _given(events)
    about = given.c.admitted_ms
    near = events.c.admitted_ms.between(about - _NEAR_MS, about + _NEAR_MS)
    # A scalar is looked up row by row, in the partitions that are near; a join might read the whole table.
    stands = select(events.c.status).where(events.c.request_id == given.c.request_id, near).limit(1).scalar_subquery()
    rows = select(*given.c).where(stands.is_(None))
    taking = insert(events).from_select(events.columns.keys(), rows).on_conflict_do_nothing()
    return taking.returning(events.c.request_id)


def _columns(table: Table, rows: Rows) -> dict[str, list[Any]]:
    """The rows' values by column, the rows in the order of their keys."""
    keys = [column.name for column in table.primary_key]
    ordered = sorted(rows, key=lambda row: tuple(row[name] for name in keys))
    return {f"all_{name}": [row[name] for row in ordered] for name in table.columns.keys()}  # noqa: SIM118  # not a dict


_PARAMETERS = [f"all_{name}" for name in events.columns.keys()]  # noqa: SIM118  # not a dict
_TAKING = _taking()
