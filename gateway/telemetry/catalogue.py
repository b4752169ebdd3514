"""Every metric there is: its name, what it tells, its labels or buckets, and how workers' gauges become one.

Names follow Prometheus: prefix `tollway_`, units last. Labels are bounded: routes, tiers and limits come from
`gateway.yaml`, models are capped (`metrics`), and no account, key or request is ever a label.
"""

from dataclasses import dataclass
from enum import Enum

from gateway.telemetry.snapshot import Key


class Merge(Enum):
    """How the workers' values of a gauge become one."""

    SUM = "sum"
    LARGEST = "largest"
    SMALLEST = "smallest"
    FARTHEST = "farthest from zero"


@dataclass(frozen=True, slots=True)
class Counter:
    """A count that only grows. Its name ends in `_total`."""

    name: str
    text: str
    labels: tuple[str, ...] = ()

    def fits(self, key: Key) -> bool:
        """Whether these are values of its labels: a file may be another version's."""
        return len(key) == len(self.labels)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations in buckets: `bounds` are their upper ends, a last bucket takes the rest."""

    name: str
    text: str
    bounds: tuple[float, ...]
    labels: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many numbers a slot has: a count per bucket, the last bucket's, and the sum."""
        return len(self.bounds) + 2

    def fits(self, key: Key, slot: list[float]) -> bool:
        """Whether these are values of its labels and a slot of its buckets: a file may be another version's."""
        return len(key) == len(self.labels) and len(slot) == self.width


@dataclass(frozen=True, slots=True)
class Gauge:
    """A level. `merge` says what several workers' levels mean together."""

    name: str
    text: str
    merge: Merge = Merge.SUM


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_SHORT_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

REQUESTS = Counter("tollway_requests_total", "Requests ended.", ("route", "status", "outcome"))
REFUSALS = Counter("tollway_refusals_total", "Requests refused by a limit.", ("tier", "limit"))
TIER_REQUESTS = Counter("tollway_tier_requests_total", "Requests of a tier's accounts, admitted or refused.", ("tier",))
TOKENS = Counter(
    "tollway_tokens_total",
    "Tokens counted. Cached tokens are part of input, reasoning tokens part of output.",
    ("model", "kind", "counted_by"),
)
EVENTS_FLUSHED = Counter("tollway_events_flushed_total", "Usage events written to the ledger.")
FLUSH_FAILURES = Counter("tollway_flush_failures_total", "Times that usage could not be moved to the ledger.")
USAGE_SET_ASIDE = Counter("tollway_usage_set_aside_total", "Usage that the ledger keeps unread.")
LIMITER_CALLS = Counter("tollway_limiter_calls_total", "Calls to the limiter.")
LIMITER_TIMEOUTS = Counter("tollway_limiter_timeouts_total", "Calls that the limiter did not answer in time.")
LOCAL_ADMISSIONS = Counter("tollway_local_admissions_total", "Requests admitted without the limiter.")
JOURNAL_REPLAYED = Counter("tollway_journal_replayed_total", "Journal entries settled once the limiter was back.")
WRONG_CREDENTIALS = Counter("tollway_wrong_credentials_total", "Keys and tokens that were none.")
GUESSES_SLOWED = Counter("tollway_guesses_slowed_total", "Requests of addresses that sent too many wrong credentials.")
HOLDS_REAPED = Counter("tollway_holds_reaped_total", "Requests settled in place of a worker that died or stood still.")
UPSTREAM_ATTEMPTS = Counter(
    "tollway_upstream_attempts_total",
    "Requests sent to one of several targets, by how that ended.",
    ("upstream", "target", "end"),
)
ADMIN_REFUSED = Counter("tollway_admin_refused_total", "Requests to the admin API without the admin token.")
STRIPE_EVENTS = Counter("tollway_stripe_events_total", "Webhooks of Stripe, by how each ended.", ("result",))
STRIPE_DRIFT = Counter("tollway_stripe_drift_total", "Subscriptions that were not as Stripe has them.")
STRIPE_SYNC_FAILURES = Counter("tollway_stripe_sync_failures_total", "Comparisons with Stripe that failed.")
DRIFT_CHECKED = Counter("tollway_drift_checked_total", "Accounts whose counters were held against the ledger.")
LOG_LINES_DROPPED = Counter("tollway_log_lines_dropped_total", "Log lines lost to a slow or lost reader.")
PROCESSES_DIED = Counter("tollway_processes_died_total", "Processes that died and are started again.")
RELOADS = Counter("tollway_settings_reloads_total", "Changes of gateway.yaml, applied or refused.", ("outcome",))

DURATION = Histogram("tollway_request_duration_seconds", "From a request's head to its end.", _SECONDS, ("route",))
ADMISSION = Histogram(
    "tollway_admission_seconds",
    "Latency added before the upstream: from a request's head to admission.",
    _SHORT_SECONDS,
)
FIRST_BYTE = Histogram(
    "tollway_first_byte_seconds", "From a request's head to the first body byte sent.", _SECONDS, ("route",)
)
FLUSH = Histogram("tollway_flush_seconds", "The ledger's time for a batch of usage.", _SECONDS)

REQUESTS_RUNNING = Gauge("tollway_requests_running", "Requests under way.")
STREAMS_OPEN = Gauge("tollway_streams_open", "Streamed answers under way.")
ANSWERS_DRAINING = Gauge("tollway_answers_draining", "Answers read on for clients who left.")
CONNECTIONS_OPEN = Gauge("tollway_upstream_connections_open", "Connections to upstreams, busy and idle.")
CONNECTIONS_IDLE = Gauge("tollway_upstream_connections_idle", "Connections to upstreams that wait for a request.")
USAGE_BACKLOG = Gauge("tollway_usage_backlog_events", "Usage events not yet in the ledger.", Merge.LARGEST)
USAGE_BACKLOG_MAX = Gauge(
    "tollway_usage_backlog_max_events", "Usage events that may wait for the ledger.", Merge.LARGEST
)
USAGE_BACKLOG_FULL = Gauge("tollway_usage_backlog_full", "Workers that admit nothing until the backlog falls.")
DRIFT_ACCOUNTS = Gauge(
    "tollway_drift_accounts", "Accounts whose counters are not what the ledger holds, of those checked.", Merge.LARGEST
)
FLUSH_LAG = Gauge("tollway_flush_lag_seconds", "Age of the oldest usage event not yet in the ledger.", Merge.LARGEST)
JOURNAL_SET_ASIDE = Counter(
    "tollway_journal_set_aside_total", "Journal entries that could not be settled, each kept in a file."
)
JOURNAL_BYTES = Gauge("tollway_journal_bytes", "Journal not yet replayed, of living workers.")
JOURNAL_FAILING = Gauge("tollway_journal_failing", "Workers that can't write their journal.")
STRIPE_OPEN = Gauge(
    "tollway_stripe_events_open", "Webhooks that are stored and could not be applied yet.", Merge.LARGEST
)
STRIPE_SYNCED = Gauge(
    "tollway_stripe_synced_timestamp_seconds",
    "When a comparison with Stripe last ended well, or a worker last began; Unix time.",
    Merge.LARGEST,
)
STRIPE_SYNC_INTERVAL = Gauge(
    "tollway_stripe_sync_interval_seconds", "How often Stripe is to be compared with.", Merge.LARGEST
)
BREAKER_OPEN = Gauge("tollway_limiter_breaker_open", "Workers that take the limiter for silent.")
TARGETS_UNFIT = Gauge("tollway_upstream_targets_unfit", "Targets that are left alone, counted by each worker.")
SETTINGS_VERSION = Gauge(
    "tollway_settings_version", "Reading of gateway.yaml that every worker has, from 1.", Merge.SMALLEST
)
SETTINGS_NEWEST = Gauge(
    "tollway_settings_version_newest", "Reading of gateway.yaml that was applied last, from 1.", Merge.LARGEST
)
SETTINGS_REFUSED = Gauge(
    "tollway_settings_refused",
    "1 while gateway.yaml was refused and an earlier reading is in force.",
    Merge.LARGEST,
)
CLOCK_OFFSET = Gauge("tollway_clock_offset_seconds", "The limiter's clock minus the gateway's.", Merge.FARTHEST)

COUNTERS = (
    REQUESTS,
    REFUSALS,
    TIER_REQUESTS,
    TOKENS,
    EVENTS_FLUSHED,
    FLUSH_FAILURES,
    USAGE_SET_ASIDE,
    LIMITER_CALLS,
    LIMITER_TIMEOUTS,
    LOCAL_ADMISSIONS,
    JOURNAL_REPLAYED,
    JOURNAL_SET_ASIDE,
    WRONG_CREDENTIALS,
    GUESSES_SLOWED,
    HOLDS_REAPED,
    UPSTREAM_ATTEMPTS,
    ADMIN_REFUSED,
    STRIPE_EVENTS,
    STRIPE_DRIFT,
    STRIPE_SYNC_FAILURES,
    DRIFT_CHECKED,
    LOG_LINES_DROPPED,
    PROCESSES_DIED,
    RELOADS,
)
HISTOGRAMS = (DURATION, ADMISSION, FIRST_BYTE, FLUSH)
GAUGES = (
    REQUESTS_RUNNING,
    STREAMS_OPEN,
    ANSWERS_DRAINING,
    CONNECTIONS_OPEN,
    CONNECTIONS_IDLE,
    USAGE_BACKLOG,
    USAGE_BACKLOG_MAX,
    USAGE_BACKLOG_FULL,
    DRIFT_ACCOUNTS,
    FLUSH_LAG,
    JOURNAL_BYTES,
    JOURNAL_FAILING,
    STRIPE_OPEN,
    STRIPE_SYNCED,
    STRIPE_SYNC_INTERVAL,
    BREAKER_OPEN,
    TARGETS_UNFIT,
    SETTINGS_VERSION,
    SETTINGS_NEWEST,
    SETTINGS_REFUSED,
    CLOCK_OFFSET,
)
