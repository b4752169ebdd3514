"""The ledger's tables. Counts are integers, times Unix milliseconds (`_ms`) or seconds (`_s`).

SQLite tables are STRICT, so that a count can't turn into a float or a text unseen. `migrations/` builds the same
tables step by step; a test keeps the two equal. On PostgreSQL events are partitioned by the month of their admission.
Events and roll-ups have no foreign key to accounts: usage that happened is written down whatever became of its account.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

COUNT = BigInteger().with_variant(Integer(), "sqlite")
"""A 64-bit integer on every database."""

SUMS = ("events", "requests", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
"""The columns of a row of sums."""


def storable_text(text: str) -> str:
    """The text with a visible sign for each zero character, which PostgreSQL has no place for."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}")


class Word(TypeDecorator[str]):
    """A text that every database can hold, or look for, whatever a caller put into it."""

    impl = Text
    cache_ok = True

    @property
    def python_type(self) -> type[str]:
        """What its values are."""
        return str

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """The text as it is stored."""
        return value if value is None or dialect.name != "postgresql" else storable_text(value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _count(name: str, *, key: bool = False) -> Column[int]:
    return Column(name, COUNT, nullable=False, primary_key=key)


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, Word, nullable=False, primary_key=key)


def _sums() -> list[Column[int]]:
    return [_count(name) for name in SUMS]


accounts = Table(
    "accounts",
    metadata,
    _text("id", key=True),
    _text("name"),
    _text("tier"),
    _count("suspended"),
    _count("version"),
    _count("created_ms"),
    sqlite_strict=True,
)

api_keys = Table(
    "api_keys",
    metadata,
    _text("id", key=True),
    Column("account_id", Word, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("digest", LargeBinary, nullable=False),
    _text("name"),
    _count("created_ms"),
    Column("expires_ms", COUNT),
    Column("revoked_ms", COUNT),
    Column("terms", Word),
    sqlite_strict=True,
)

events = Table(
    "events",
    metadata,
    _text("request_id", key=True),
    _text("account_id"),
    _text("key_id"),
    _text("tier"),
    _text("route"),
    _text("endpoint"),
    _text("model"),
    _text("upstream"),
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
    _text("conversation_id"),
    _text("message_id"),
    Index(None, "account_id", "admitted_ms"),
    sqlite_strict=True,
)
"""One row per settled request, its columns those of `domain.usage.UsageEvent` in the same order.

On PostgreSQL the key is (request_id, admitted_ms): a partition's key holds what it is partitioned by.
"""

usage_hourly = Table(
    "usage_hourly",
    metadata,
    _text("account_id", key=True),
    _count("hour_s", key=True),
    _text("endpoint", key=True),
    _text("model", key=True),
    *_sums(),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

usage_daily = Table(
    "usage_daily",
    metadata,
    _text("account_id", key=True),
    _count("day_s", key=True),
    *_sums(),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

outbox = Table(
    "outbox",
    metadata,
    Column("row_id", COUNT, primary_key=True, autoincrement=True),
    Column("account_id", Word, ForeignKey("accounts.id"), nullable=False),
    _count("version"),
    _count("changed_ms"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
"""Versions that the limiter has yet to be told; written in the transaction of the change itself."""

set_aside = Table(
    "set_aside",
    metadata,
    Column("digest", LargeBinary, primary_key=True, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    _text("reason"),
    _count("set_aside_ms"),
    sqlite_strict=True,
)
"""Entries of the usage stream that can't be read as an event, kept whole, by the SHA-256 of their bytes."""

subscriptions = Table(
    "subscriptions",
    metadata,
    _text("id", key=True),
    Column("account_id", Word, ForeignKey("accounts.id"), nullable=False, index=True),
    _text("tier"),
    _text("status"),
    _text("source"),
    Column("customer_id", Word, nullable=False, index=True),
    _text("product_id"),
    _text("price_id"),
    Column("period_start_s", COUNT),
    Column("period_end_s", COUNT),
    _count("interval_months"),
    _count("interval_days"),
    Column("anchor_s", COUNT),
    Column("trial_end_s", COUNT),
    Column("cancel_at_s", COUNT),
    Column("canceled_at_s", COUNT),
    Column("expires_s", COUNT),
    Column("since_s", COUNT),
    _count("updated_ms"),
    Column("reset_ms", COUNT),
    _text("terms"),
    sqlite_strict=True,
)
"""As they stand now, in the columns of `domain.subscriptions.Subscription`; what they were is in `audit`."""

grants = Table(
    "grants",
    metadata,
    _text("id", key=True),
    Column("account_id", Word, ForeignKey("accounts.id"), nullable=False, index=True),
    _text("unit"),
    _count("amount"),
    Column("limit_window", Word),
    _count("from_s"),
    Column("until_s", COUNT),
    _text("source"),
    _text("note"),
    _count("created_ms"),
    sqlite_strict=True,
)
"""Add-ons and what was taken back of them. Rows are added and never changed."""

overrides = Table(
    "overrides",
    metadata,
    Column("account_id", Word, ForeignKey("accounts.id"), primary_key=True, nullable=False),
    _text("terms"),
    _count("changed_ms"),
    sqlite_strict=True,
)

audit = Table(
    "audit",
    metadata,
    Column("row_id", COUNT, primary_key=True, autoincrement=True),
    _count("at_ms"),
    _text("who"),
    _text("source"),
    _text("action"),
    _text("account_id"),
    Column("before_json", Word),
    Column("after_json", Word),
    Index(None, "account_id", "row_id"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
"""Who did what to which account. Rows are added and never changed; they outlive the account."""

stripe_events = Table(
    "stripe_events",
    metadata,
    _text("id", key=True),
    _text("type"),
    _text("subject"),
    _text("customer_id"),
    _text("account_id"),
    _count("created_s"),
    _count("received_ms"),
    Column("state", Word, nullable=False, index=True),
    _count("attempts"),
    _count("retry_ms"),
    _text("error"),
    Column("payload", LargeBinary),
    Index(None, "subject"),
    sqlite_strict=True,
)
"""Every webhook that Stripe signed, by the event's id, stored before it is applied; its content goes once it is."""

stripe_customers = Table(
    "stripe_customers",
    metadata,
    _text("id", key=True),
    Column("account_id", Word, ForeignKey("accounts.id"), nullable=False, index=True),
    _count("linked_ms"),
    sqlite_strict=True,
)
"""Which account a customer of Stripe's is."""

stripe_products = Table(
    "stripe_products",
    metadata,
    _text("id", key=True),
    _text("name"),
    _text("metadata"),
    _count("updated_ms"),
    sqlite_strict=True,
)
"""Products and prices of Stripe's, with the metadata that says what they give."""

gauges = Table(
    "gauges",
    metadata,
    Column("account_id", Word, ForeignKey("accounts.id"), nullable=False, primary_key=True),
    _text("name", key=True),
    _count("value_milli"),
    _count("changed_ms"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
"""Where each level stands, in thousandths."""

gauge_changes = Table(
    "gauge_changes",
    metadata,
    Column("row_id", COUNT, primary_key=True, autoincrement=True),
    _text("account_id"),
    _text("name"),
    _text("request_id"),
    _count("delta_milli"),
    _count("value_milli"),
    _text("who"),
    _count("at_ms"),
    Index(None, "account_id", "name", "row_id"),
    Index(None, "account_id", "request_id"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
"""Each change of a level, with what it was then. Rows are added and never changed."""

schema_history = Table(
    "schema_history",
    metadata,
    _text("revision", key=True),
    _text("name"),
    _text("checksum"),
    _count("applied_ms"),
    sqlite_strict=True,
)
"""The migrations that this ledger has been through: the file of each, its SHA-256, and when."""
