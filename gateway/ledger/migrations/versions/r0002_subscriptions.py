"""Subscriptions, grants, overrides, and the audit of every change."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COUNT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    _create_subscriptions()
    _create_grants()
    op.create_table(
        "overrides",
        _text("account_id"),
        _text("terms"),
        _count("changed_ms"),
        sa.PrimaryKeyConstraint("account_id", name="pk_overrides"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_overrides_account_id"),
        sqlite_strict=True,
    )
    _create_audit()


def downgrade() -> None:
    """Drop the tables, and all that is in them."""
    for table in ("audit", "overrides", "grants", "subscriptions"):
        op.drop_table(table)


def _count(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, _COUNT, nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _create_subscriptions() -> None:
    texts = ("id", "account_id", "tier", "status", "source", "customer_id", "product_id", "price_id")
    moments = ("anchor_s", "trial_end_s", "cancel_at_s", "canceled_at_s", "expires_s", "since_s")
    op.create_table(
        "subscriptions",
        *(_text(name) for name in texts),
        _count("period_start_s", nullable=True),
        _count("period_end_s", nullable=True),
        _count("interval_months"),
        _count("interval_days"),
        *(_count(name, nullable=True) for name in moments),
        _count("updated_ms"),
        _count("reset_ms", nullable=True),
        _text("terms"),
        sa.PrimaryKeyConstraint("id", name="pk_subscriptions"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_subscriptions_account_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_subscriptions_account_id", "subscriptions", ["account_id"])
    op.create_index("ix_subscriptions_customer_id", "subscriptions", ["customer_id"])


def _create_grants() -> None:
    op.create_table(
        "grants",
        _text("id"),
        _text("account_id"),
        _text("unit"),
        _count("amount"),
        _text("limit_window", nullable=True),
        _count("from_s"),
        _count("until_s", nullable=True),
        _text("source"),
        _text("note"),
        _count("created_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_grants"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_grants_account_id"),
        sqlite_strict=True,
    )
    op.create_index("ix_grants_account_id", "grants", ["account_id"])


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("row_id", _COUNT, primary_key=True, autoincrement=True),
        _count("at_ms"),
        _text("who"),
        _text("source"),
        _text("action"),
        _text("account_id"),
        _text("before_json", nullable=True),
        _text("after_json", nullable=True),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_account_id_row_id", "audit", ["account_id", "row_id"])
