"""What differs between the databases that can hold a ledger: connections, and how many rows are written at once."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.domain.usage import UsageEvent

Rows = Sequence[Mapping[str, Any]]
"""Rows of one table, each with a value for every column."""


class Store(Protocol):
    """One kind of database. Statements run on connections of its own engines, inside their transactions."""

    single_writer: bool
    """Whether a second writing process has to wait for the first one's whole transaction."""
    writer: AsyncEngine
    reader: AsyncEngine
    """Its transactions see one moment of the database, and can't write."""
    failures: tuple[type[BaseException], ...]
    """What the driver raises for a database that is away or fails, beside SQLAlchemy's own errors."""

    def storable(self, events: Sequence[UsageEvent]) -> Sequence[UsageEvent]:
        """The events in texts that the database can hold."""
        ...

    async def insert_events(self, connection: AsyncConnection, events: Sequence[UsageEvent]) -> list[str]:
        """Insert those that are new, each request id once; their request ids."""
        ...

    async def add_sums(self, connection: AsyncConnection, table: Table, rows: Rows) -> None:
        """Insert rows of sums, or add them to those that stand under their keys."""
        ...

    async def insert_new(self, connection: AsyncConnection, table: Table, rows: Rows) -> None:
        """Insert rows, save those whose keys are taken."""
        ...

    async def begin_migration(self, connection: AsyncConnection) -> None:
        """Wait until no other process migrates, and keep others waiting until the transaction ends."""
        ...
