"""From an upstream's settings to what requests are sent to: its transport, its credential."""

from gateway.settings.upstreams import Upstream
from gateway.upstream.httpx_transport import HttpxTransport
from gateway.upstream.lean_transport import LeanTransport
from gateway.upstream.origin import origin_of
from gateway.upstream.target import Target
from gateway.upstream.tls import verifying_context
from gateway.upstream.transport import Timeouts, Transport


def open_target(name: str, upstream: Upstream, sandbox_url: str) -> Target:
    """An upstream's transport and credential, inside a running loop. Raises ValueError for a URL that can't be used."""
    sandbox = upstream.uses_sandbox
    address = sandbox_url if sandbox else upstream.url
    origin = origin_of(address)
    waits = upstream.timeouts
    timeouts = Timeouts(waits.connect_s, waits.first_byte_s, waits.between_bytes_s, waits.total_s, waits.pool_s)
    transport: Transport
    if upstream.transport == "httpx" and not sandbox:
        transport = HttpxTransport(
            origin,
            timeouts,
            max_connections=upstream.max_connections,
            http2=upstream.http2,
            proxy=upstream.proxy or None,
            ssl_context=verifying_context(upstream.ca_file),
        )
    else:
        transport = LeanTransport(
            origin,
            timeouts,
            max_connections=upstream.max_connections,
            idle_s=upstream.idle_s,
            ssl_context=verifying_context(upstream.ca_file) if origin.scheme == "https" else None,
        )
    return Target(name, transport, _credential(upstream), address.rstrip("/").encode())


def _credential(upstream: Upstream) -> tuple[bytes, bytes] | None:
    if not upstream.api_key or upstream.auth == "none":
        return None
    if upstream.auth == "bearer":
        return b"authorization", b"Bearer " + upstream.api_key.encode()
    return upstream.auth.encode(), upstream.api_key.encode()
