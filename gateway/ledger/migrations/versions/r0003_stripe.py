"""What Stripe told: its events, its customers' accounts, its products."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COUNT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    _create_events()
    op.create_table(
        "stripe_customers",
        _text("id"),
        _text("account_id"),
        _count("linked_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_stripe_customers"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_stripe_customers_account_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_stripe_customers_account_id", "stripe_customers", ["account_id"])
    op.create_table(
        "stripe_products",
        _text("id"),
        _text("name"),
        _text("metadata"),
        _count("updated_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_stripe_products"),
        sqlite_strict=True,
    )


def downgrade() -> None:
    """Drop the tables, and all that is in them."""
    for table in ("stripe_products", "stripe_customers", "stripe_events"):
        op.drop_table(table)


def _create_events() -> None:
    op.create_table(
        "stripe_events",
        *(_text(name) for name in ("id", "type", "subject", "customer_id", "account_id")),
        _count("created_s"),
        _count("received_ms"),
        _text("state"),
        _count("attempts"),
        _count("retry_ms"),
        _text("error"),
        sa.Column("payload", sa.LargeBinary, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_stripe_events"),
        sqlite_strict=True,
    )
    op.create_index("ix_stripe_events_state", "stripe_events", ["state"])
    op.create_index("ix_stripe_events_subject", "stripe_events", ["subject"])


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, _COUNT, nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)
