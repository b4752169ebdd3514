"""Accounts, keys, events and their sums, the outbox, and what was set aside."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_COUNT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create every table."""
    _create_accounts()
    _create_events()
    _create_sums("usage_hourly", _text("account_id"), _count("hour_s"), _text("endpoint"), _text("model"))
    _create_sums("usage_daily", _text("account_id"), _count("day_s"))
    _create_set_aside()


def downgrade() -> None:
    """Drop every table, and all that is in them."""
    for table in ("set_aside", "usage_daily", "usage_hourly", "events", "outbox", "api_keys", "accounts"):
        op.drop_table(table)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, _COUNT, nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        _text("id"),
        _text("name"),
        _text("tier"),
        _count("suspended"),
        _count("version"),
        _count("created_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sqlite_strict=True,
    )
    op.create_table(
        "api_keys",
        _text("id"),
        _text("account_id"),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        _text("name"),
        _count("created_ms"),
        sa.Column("expires_ms", _COUNT),
        sa.Column("revoked_ms", _COUNT),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_api_keys_account_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_api_keys_account_id", "api_keys", ["account_id"])
    op.create_table(
        "outbox",
        sa.Column("row_id", _COUNT, primary_key=True, autoincrement=True),
        _text("account_id"),
        _count("version"),
        _count("changed_ms"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_outbox_account_id"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )


def _create_events() -> None:
    partitioned = op.get_context().dialect.name == "postgresql"
    texts = ("request_id", "account_id", "key_id", "tier", "route", "endpoint", "model", "upstream")
    op.create_table(
        "events",
        *(_text(name) for name in texts),
        _count("admitted_ms"),
        _count("settled_ms"),
        _count("status"),
        _text("outcome"),
        _text("counted_by"),
        _count("streamed"),
        _count("requests"),
        _count("input_tokens"),
        _count("output_tokens"),
        _count("cached_tokens"),
        _count("reasoning_tokens"),
        _count("estimated_tokens"),
        _count("request_bytes"),
        _count("response_bytes"),
        sa.PrimaryKeyConstraint(*(["request_id", "admitted_ms"] if partitioned else ["request_id"]), name="pk_events"),
        sqlite_strict=True,
        postgresql_partition_by="RANGE (admitted_ms)",
    )
    if partitioned:
        op.execute("CREATE TABLE events_default PARTITION OF events DEFAULT")
    op.create_index("ix_events_account_id_admitted_ms", "events", ["account_id", "admitted_ms"])


def _create_sums(table: str, *keys: sa.Column[int] | sa.Column[str]) -> None:
    op.create_table(
        table,
        *keys,
        _count("events"),
        _count("requests"),
        _count("input_tokens"),
        _count("output_tokens"),
        _count("cached_tokens"),
        _count("reasoning_tokens"),
        sa.PrimaryKeyConstraint(*(key.name for key in keys), name=f"pk_{table}"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _create_set_aside() -> None:
    op.create_table(
        "set_aside",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        _text("reason"),
        _count("set_aside_ms"),
        sa.PrimaryKeyConstraint("digest", name="pk_set_aside"),
        sqlite_strict=True,
    )
