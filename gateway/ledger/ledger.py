"""The ledger: the durable truth about accounts, keys and usage."""

from gateway.ledger.accounts import AccountBook
from gateway.ledger.usage import UsageBook


class Ledger(AccountBook, UsageBook):
    """One ledger over one database: `Ledger.open(url)`, and `close` at the end. `schema.ensure_schema` comes first."""
