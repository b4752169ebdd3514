"""What gateway.yaml may say, as types. The loader, the JSON Schema and the docs of each key come from here.

A number's bounds and a key's description stand in its `Meta`; a text's further check in `Meta.extra["check"]` (a
function of `settings/checks.py`), and `Meta.extra["rule"]` puts a pattern into words. Values are not checked when made
in code: only `settings/load.py` checks.
"""

from typing import Annotated, Literal

from msgspec import Meta, field

from gateway.domain.limits import MAXIMUM
from gateway.settings import checks
from gateway.settings.callers import GuessesSettings, Jwt
from gateway.settings.metering import Metering
from gateway.settings.plans import Subscriptions, TierSettings
from gateway.settings.section import Name, Seconds, Section
from gateway.settings.stripe import Stripe
from gateway.settings.upstreams import ModelSettings, Upstream

Method = Annotated[str, Meta(pattern=r"^[A-Z]{1,32}$", extra={"rule": "an HTTP method in capitals"})]
Network = Annotated[str, Meta(extra={"check": checks.network})]


class Listen(Section, frozen=True, kw_only=True):
    """Where clients reach the gateway, and how much of the machine it takes."""

    host: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9.:_%-]+$",
            description="Address to bind; 0.0.0.0 or :: for every interface.",
            extra={"rule": "an IP address or a host name"},
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="TCP port; 0 takes any free one.")] = 8080
    workers: Annotated[int, Meta(ge=1, le=256, description="Processes; one for each core to be used.")] = 1
    prefix: Annotated[
        str, Meta(description="Path of Tollway's own endpoints.", extra={"check": checks.prefix_path})
    ] = "/_tollway"
    trusted_proxies: Annotated[
        tuple[Network, ...], Meta(description="Networks of the proxies in front, whose word on the client counts.")
    ] = ()
    forwarded_by: Annotated[
        Literal["x-forwarded-for", "forwarded"], Meta(description="The one header in which they tell it.")
    ] = "x-forwarded-for"
    max_body_mb: Annotated[int, Meta(ge=1, le=4096, description="Largest request body that is read whole, MiB.")] = 32
    backlog: Annotated[int, Meta(ge=1, le=65_535, description="Connections that may wait to be accepted.")] = 2048
    max_connections: Annotated[
        int, Meta(ge=0, le=1_000_000, description="Most client connections of one worker; 0 is unbounded.")
    ] = 0
    keep_alive_s: Annotated[int, Meta(ge=1, le=3600, description="How long an idle client connection is kept.")] = 75
    keep_alive_comment_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="After so long a silence of the upstream, a started event stream gets a comment; 0 is never.",
        ),
    ] = 15
    websocket_idle_s: Annotated[
        float, Meta(ge=0, le=86_400, description="A WebSocket over which so long nothing came is closed; 0 is never.")
    ] = 600
    shutdown_grace_s: Annotated[int, Meta(ge=0, le=3600, description="How long a stop waits for streams to end.")] = 30


class Redis(Section, frozen=True, kw_only=True):
    """The live counters."""

    url: Annotated[
        str,
        Meta(
            description=(
                "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://; empty starts an embedded Valkey"
                " in data_dir."
            ),
            extra={"check": checks.redis_url},
        ),
    ] = ""
    timeout_ms: Annotated[int, Meta(ge=1, le=60_000, description="Longest wait for one answer of Redis.")] = 1000
    partitions: Annotated[
        int, Meta(ge=1, le=1024, description="Over how many hash tags accounts are spread; the same on every gateway.")
    ] = 8
    breaker_failures: Annotated[
        int, Meta(ge=1, le=1000, description="Calls without an answer, in a row, that mean that Redis is silent.")
    ] = 3
    breaker_longest_pause_ms: Annotated[
        int, Meta(ge=100, le=60_000, description="Longest pause between two looks whether a silent Redis is back.")
    ] = 2000
    local_share: Annotated[
        float,
        Meta(ge=0, le=1, description="Part of each limit that all workers together admit while Redis is silent."),
    ] = 0.5
    namespace: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_-]{1,32}$",
            description="First part of every key, for a shared Redis.",
            extra={"rule": "1 to 32 letters, digits, - and _"},
        ),
    ] = "tw"


class Journal(Section, frozen=True, kw_only=True):
    """What a worker writes to data_dir/journal while Redis is silent."""

    max_mb: Annotated[
        int, Meta(ge=1, le=65_536, description="MiB of one worker, beyond which it admits nothing more on its own.")
    ] = 256
    sync_ms: Annotated[int, Meta(ge=1, le=10_000, description="Within which an entry is synced to the disk.")] = 100
    replay_per_s: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Entries that one worker settles in a second once Redis is back.")
    ] = 5000


class Database(Section, frozen=True, kw_only=True):
    """The ledger: accounts, keys and every settled request."""

    url: Annotated[
        str,
        Meta(
            description="postgresql://user:password@host/database or sqlite:///path; empty is SQLite in data_dir.",
            extra={"check": checks.database_url},
        ),
    ] = ""
    pool_size: Annotated[
        int, Meta(ge=1, le=1000, description="PostgreSQL: most connections of one worker, opened as they are needed.")
    ] = 5
    connect_timeout_s: Annotated[
        Seconds, Meta(description="PostgreSQL: longest wait for a new connection, or for a free one of the pool.")
    ] = 5
    statement_timeout_s: Annotated[
        Seconds, Meta(description="PostgreSQL: longest time for one statement; the server ends it then.")
    ] = 30
    lock_timeout_s: Annotated[Seconds, Meta(description="PostgreSQL: longest wait of a statement for a lock.")] = 10
    transaction_pooling: Annotated[
        bool,
        Meta(description="PostgreSQL: a PgBouncer in transaction mode is in between; keep nothing on a connection."),
    ] = False


class Keys(Section, frozen=True, kw_only=True):
    """API keys that Tollway gives out."""

    secret: Annotated[
        str,
        Meta(
            description="Keys the digests under which API keys are stored; empty makes a key file in data_dir.",
            extra={"check": checks.digest_secret},
        ),
    ] = ""


class Log(Section, frozen=True, kw_only=True):
    """What is written to standard output."""

    format: Annotated[Literal["json", "console"], Meta(description="json for machines, console for people.")] = "json"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least severe line that is written.")
    ] = "info"
    requests: Annotated[bool, Meta(description="One line for each request.")] = True


class Route(Section, frozen=True, kw_only=True):
    """Which requests go where. The first route that matches wins."""

    path: Annotated[
        str, Meta(description="/exact/path, or /prefix/* for all below it.", extra={"check": checks.route_path})
    ]
    methods: Annotated[tuple[Method, ...], Meta(description="HTTP methods in capitals; empty is any.")] = ()
    upstream: Annotated[str, Meta(description="A name under upstreams.")]
    fallback: Annotated[
        tuple[str, ...], Meta(description="Upstreams to ask, in order, while none of upstream's targets answers.")
    ] = ()
    dialect: Annotated[
        Literal[
            "openai",
            "openai-responses",
            "openai-embeddings",
            "openai-images",
            "openai-speech",
            "openai-transcriptions",
            "openai-realtime",
            "anthropic",
            "gemini",
            "plain",
        ],
        Meta(description="API shape; plain counts requests and no tokens."),
    ]
    default_max_tokens: Annotated[
        int, Meta(ge=1, le=MAXIMUM, description="Output tokens reserved where the caller sets no maximum.")
    ] = 4096
    endpoint: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_./:*{}-]{0,128}$",
            description="What usage is recorded under; empty is path.",
            extra={"rule": "letters, digits and _ . / : * { } -"},
        ),
    ] = ""
    models: Annotated[ModelSettings | None, Meta(description="Models of this route; the tier's hold too.")] = None
    tiers: Annotated[tuple[Name, ...], Meta(description="Open to these tiers alone; empty is every one.")] = ()
    needs: Annotated[Name | None, Meta(description="Open to accounts with this feature alone.")] = None
    schedule: Annotated[
        Name | None, Meta(description="Open when the tier's schedule of that name is, to tiers with one alone.")
    ] = None
    preflight: Annotated[
        Literal["refuse", "pass"],
        Meta(description="CORS preflights, which carry no key: pass sends them on, unmetered and without any."),
    ] = "refuse"


class Reload(Section, frozen=True, kw_only=True):
    """How a change of this file reaches the running gateway."""

    watch: Annotated[
        bool, Meta(description="Take a change once the file has been still for a second; SIGHUP asks for it at once.")
    ] = True


class Settings(Section, frozen=True, kw_only=True):
    """gateway.yaml: who may use which upstream, and how much."""

    listen: Listen = field(default_factory=Listen)
    data_dir: Annotated[
        str, Meta(min_length=1, description="What Tollway keeps on disk, relative to where it is started.")
    ] = "./data"
    redis: Redis = field(default_factory=Redis)
    journal: Journal = field(default_factory=Journal)
    database: Database = field(default_factory=Database)
    keys: Keys = field(default_factory=Keys)
    jwt: Annotated[tuple[Jwt, ...], Meta(description="Issuers whose tokens are taken beside API keys.")] = ()
    guesses: GuessesSettings = field(default_factory=GuessesSettings)
    log: Log = field(default_factory=Log)
    metering: Metering = field(default_factory=Metering)
    upstreams: Annotated[dict[Name, Upstream], Meta(min_length=1, description="Servers behind the gateway, by name.")]
    routes: Annotated[tuple[Route, ...], Meta(min_length=1, description="In order: the first match wins.")]
    tiers: Annotated[dict[Name, TierSettings], Meta(min_length=1, description="Plans, by name.")]
    default_tier: Annotated[str, Meta(description="The tier of an account made without one.")]
    subscriptions: Subscriptions = field(default_factory=Subscriptions)
    stripe: Stripe = field(default_factory=Stripe)
    reload: Reload = field(default_factory=Reload)
