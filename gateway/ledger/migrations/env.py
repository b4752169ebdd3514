"""Alembic's entry: runs the steps on the connection, and inside the transaction, that `ledger/migrate.py` hands in."""

from alembic import context

from gateway.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
