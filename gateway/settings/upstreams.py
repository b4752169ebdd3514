"""What gateway.yaml may say of upstreams, as types; as `settings/model.py`, of which this is a part."""

from typing import Annotated, Literal

from msgspec import Meta, field

from gateway.settings import checks
from gateway.settings.section import Seconds, Section

Connections = Annotated[int, Meta(ge=1, le=65_536)]


class Timeouts(Section, frozen=True, kw_only=True):
    """How long to wait for an upstream, in seconds."""

    connect_s: Annotated[Seconds, Meta(description="For a connection, TLS included.")] = 5
    first_byte_s: Annotated[Seconds, Meta(description="From the request sent to the answer's head.")] = 120
    between_bytes_s: Annotated[Seconds, Meta(description="Between two pieces of an answer.")] = 60
    total_s: Annotated[float, Meta(ge=0, le=604_800, description="For the whole answer; 0 is unbounded.")] = 0
    pool_s: Annotated[Seconds, Meta(description="For a free connection of the pool.")] = 5


class Upstream(Section, frozen=True, kw_only=True):
    """A server that requests are sent on to."""

    url: Annotated[
        str,
        Meta(
            description="http(s)://host[:port][/base/path], or sandbox for the built-in upstream.",
            extra={"check": checks.upstream_url},
        ),
    ]
    api_key: Annotated[
        str, Meta(description="Sent upstream in place of the caller's key.", extra={"check": checks.credential})
    ] = ""
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

    @property
    def uses_sandbox(self) -> bool:
        """Whether the built-in upstream answers in place of `url`."""
        return self.url == checks.SANDBOX or (self.without_key == "sandbox" and not self.api_key)
