"""What gateway.yaml may say of upstreams, as types; as `settings/model.py`, of which this is a part."""

from typing import Annotated, Literal

from msgspec import Meta, field

from gateway.settings import checks
from gateway.settings.section import Seconds, Section

Connections = Annotated[int, Meta(ge=1, le=65_536)]
Model = Annotated[str, Meta(min_length=1, max_length=256)]
ModelNames = dict[str, Model]


class Timeouts(Section, frozen=True, kw_only=True):
    """How long to wait for an upstream, in seconds."""

    connect_s: Annotated[Seconds, Meta(description="For a connection, TLS included.")] = 5
    first_byte_s: Annotated[Seconds, Meta(description="From the request sent to the answer's head.")] = 120
    between_bytes_s: Annotated[Seconds, Meta(description="Between two pieces of an answer.")] = 60
    total_s: Annotated[float, Meta(ge=0, le=604_800, description="For the whole answer; 0 is unbounded.")] = 0
    pool_s: Annotated[Seconds, Meta(description="For a free connection of the pool.")] = 5


class TargetSettings(Section, frozen=True, kw_only=True):
    """One of an upstream's addresses."""

    url: Annotated[str, Meta(description="http(s)://host[:port][/base/path].", extra={"check": checks.target_url})]
    api_key: Annotated[
        str, Meta(description="Its own key; empty takes the upstream's.", extra={"check": checks.credential})
    ] = ""
    weight: Annotated[int, Meta(ge=1, le=1000, description="Its share of the requests, beside the others'.")] = 1


class RetrySettings(Section, frozen=True, kw_only=True):
    """When a request is sent to another target; never after the first byte of an answer."""

    max_attempts: Annotated[int, Meta(ge=1, le=10, description="Most targets that one request is sent to.")] = 3
    total_s: Annotated[Seconds, Meta(description="No attempt begins later than this after the first.")] = 30
    unsafe: Annotated[
        bool,
        Meta(description="Also send again what may have been processed: after a time-out, a cut, a 500, 502 or 504."),
    ] = False


class BreakerSettings(Section, frozen=True, kw_only=True):
    """When a target is left alone."""

    failures: Annotated[int, Meta(ge=1, le=1000, description="Failures in a row that open it.")] = 5
    first_pause_s: Annotated[Seconds, Meta(description="How long, at first; doubled each time, and jittered.")] = 1
    longest_pause_s: Annotated[Seconds, Meta(description="How long at most.")] = 60
    longest_rest_s: Annotated[Seconds, Meta(description="How long a 429's Retry-After is heeded at most.")] = 60


class HealthSettings(Section, frozen=True, kw_only=True):
    """What is asked of each target in the background; an answer below 400 is well."""

    path: Annotated[
        str, Meta(description="Asked with GET, below the target's url.", extra={"check": checks.plain_path})
    ]
    interval_s: Annotated[Seconds, Meta(description="How often.")] = 10
    timeout_s: Annotated[Seconds, Meta(description="How long an answer may take.")] = 5


class ModelSettings(Section, frozen=True, kw_only=True):
    """Which models may be asked for, and under which other names."""

    allow: Annotated[
        tuple[Model, ...],
        Meta(description="Globs such as gpt-4o*; empty is any model."),
    ] = ()
    aliases: Annotated[ModelNames, Meta(description="Other names: {alias: model}. The model has to be allowed.")] = (
        field(default_factory=dict)
    )


class Upstream(Section, frozen=True, kw_only=True):
    """A server that requests are sent on to, or several that do the same."""

    url: Annotated[
        str,
        Meta(
            description="http(s)://host[:port][/base/path], or sandbox for the built-in upstream.",
            extra={"check": checks.upstream_url},
        ),
    ] = ""
    targets: Annotated[
        tuple[TargetSettings, ...], Meta(description="Several addresses, in place of url; requests go to the freest.")
    ] = ()
    api_key: Annotated[
        str, Meta(description="Sent upstream in place of the caller's key.", extra={"check": checks.credential})
    ] = ""
    api_keys: Annotated[
        tuple[Annotated[str, Meta(extra={"check": checks.credential})], ...],
        Meta(description="Several keys for url, each used and rested as a target of its own."),
    ] = ()
    models: Annotated[ModelNames, Meta(description="Models that it calls otherwise: {name: its name}.")] = field(
        default_factory=dict
    )
    auth: Annotated[
        Literal["bearer", "x-api-key", "x-goog-api-key", "none"], Meta(description="Header that api_key is sent in.")
    ] = "bearer"
    without_key: Annotated[
        Literal["", "sandbox"], Meta(description="sandbox: the built-in upstream answers while api_key is empty.")
    ] = ""
    transport: Annotated[
        Literal["lean", "httpx"], Meta(description="lean is fastest; httpx speaks HTTP/2 and through proxies.")
    ] = "lean"
    http2: Annotated[bool, Meta(description="Offer HTTP/2; needs transport: httpx.")] = False
    proxy: Annotated[
        str, Meta(description="Forward proxy; needs transport: httpx.", extra={"check": checks.proxy_url})
    ] = ""
    ca_file: Annotated[str, Meta(description="PEM file of authorities to trust; empty: the system's.")] = ""
    max_connections: Annotated[Connections, Meta(description="Most connections of one worker.")] = 1024
    idle_s: Annotated[Seconds, Meta(description="How long an idle connection is kept.")] = 30.0
    timeouts: Timeouts = field(default_factory=Timeouts)
    retry: RetrySettings = field(default_factory=RetrySettings)
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    health: Annotated[HealthSettings | None, Meta(description="Ask each target in the background.")] = None

    @property
    def uses_sandbox(self) -> bool:
        """Whether the built-in upstream answers in place of `url`."""
        keyless = not self.api_key and not any(self.api_keys)
        return not self.targets and (self.url == checks.SANDBOX or (self.without_key == "sandbox" and keyless))

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every URL that requests may go to."""
        return tuple(target.url for target in self.targets) or (self.url,)
