"""The ledger: the durable truth about accounts, keys, what they may do, and usage."""

from gateway.ledger.accounts import AccountBook
from gateway.ledger.arrivals import ArrivalBook
from gateway.ledger.audit import AuditBook
from gateway.ledger.gauges import GaugeBook
from gateway.ledger.grants import GrantBook
from gateway.ledger.keys import KeyBook
from gateway.ledger.reports import ReportBook
from gateway.ledger.set_aside import SetAsideBook
from gateway.ledger.standings import StandingBook
from gateway.ledger.stripe_customers import CustomerBook
from gateway.ledger.stripe_inbox import InboxBook
from gateway.ledger.stripe_pages import StripePageBook
from gateway.ledger.stripe_products import ProductBook
from gateway.ledger.subscriptions import SubscriptionBook
from gateway.ledger.usage import UsageBook
from gateway.ledger.usage_history import HistoryBook
from gateway.ledger.verification import VerificationBook


class Ledger(
    AccountBook,
    KeyBook,
    SubscriptionBook,
    GrantBook,
    GaugeBook,
    StandingBook,
    AuditBook,
    HistoryBook,
    ArrivalBook,
    ReportBook,
    SetAsideBook,
    UsageBook,
    InboxBook,
    CustomerBook,
    StripePageBook,
    ProductBook,
    VerificationBook,
):
    """One ledger over one database: `Ledger.open(url)`, and `close` at the end. `schema.ensure_schema` comes first."""
