"""Levels that apps report, and each change of them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COUNT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "gauges",
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value_milli", _COUNT, nullable=False),
        sa.Column("changed_ms", _COUNT, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "name", name="pk_gauges"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_gauges_account_id"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "gauge_changes",
        sa.Column("row_id", _COUNT, primary_key=True, autoincrement=True),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("account_id", "name", "request_id")],
        *[sa.Column(name, _COUNT, nullable=False) for name in ("delta_milli", "value_milli")],
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at_ms", _COUNT, nullable=False),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_gauge_changes_account_id_name_row_id", "gauge_changes", ["account_id", "name", "row_id"])
    op.create_index("ix_gauge_changes_account_id_request_id", "gauge_changes", ["account_id", "request_id"])


def downgrade() -> None:
    """Drop the tables, and all that is in them."""
    op.drop_table("gauge_changes")
    op.drop_table("gauges")
