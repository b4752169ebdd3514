"""From an upstream's settings to what requests are sent to: its targets, their transports and credentials."""

from gateway.settings import upstreams as settings
from gateway.upstream.choice import Member, Retry, Upstream
from gateway.upstream.health import Health
from gateway.upstream.httpx_transport import HttpxTransport
from gateway.upstream.lean_transport import LeanTransport
from gateway.upstream.origin import origin_of
from gateway.upstream.target import Target
from gateway.upstream.tls import verifying_context
from gateway.upstream.transport import Timeouts, Transport
from gateway.upstream.tunnel import Tunnels


def open_upstream(name: str, asked: settings.Upstream, sandbox_url: str) -> Upstream:
    """An upstream's targets, inside a running loop: one for each address and key.

    Raises ValueError for a URL that can't be used.
    """
    members: list[Member] = []
    for address, weight, keys in _addresses(asked, sandbox_url):
        transport = _transport(asked, address)
        tunnels = _tunnels(asked, address) if isinstance(transport, LeanTransport) else None
        for key in keys:
            label = f"{name}/{len(members) + 1}"
            credential = _credential(asked.auth, key)
            target = Target(name, transport, credential, address.rstrip("/").encode(), tunnels)
            members.append(Member(target, label, weight, _health(label, asked.breaker)))
    return Upstream(name, tuple(members), asked.models)


def retry_of(asked: settings.Upstream) -> Retry:
    """How often requests for this upstream may be sent."""
    return Retry(asked.retry.max_attempts, asked.retry.total_s, asked.retry.unsafe)


def _addresses(asked: settings.Upstream, sandbox_url: str) -> list[tuple[str, int, list[str]]]:
    """Each address, its weight, and the keys that may be sent to it; "" is none."""
    if asked.targets:
        return [(target.url, target.weight, [target.api_key or asked.api_key]) for target in asked.targets]
    keys = [key for key in (asked.api_key, *asked.api_keys) if key]
    return [(sandbox_url if asked.uses_sandbox else asked.url, 1, keys or [""])]


def _transport(asked: settings.Upstream, address: str) -> Transport:
    origin, timeouts = origin_of(address), _timeouts(asked)
    if asked.transport == "httpx" and not asked.uses_sandbox:
        return HttpxTransport(
            origin,
            timeouts,
            max_connections=asked.max_connections,
            http2=asked.http2,
            proxy=asked.proxy or None,
            ssl_context=verifying_context(asked.ca_file),
        )
    return LeanTransport(
        origin,
        timeouts,
        max_connections=asked.max_connections,
        idle_s=asked.idle_s,
        ssl_context=verifying_context(asked.ca_file) if origin.scheme == "https" else None,
    )


def _tunnels(asked: settings.Upstream, address: str) -> Tunnels:
    return Tunnels(origin_of(address), _timeouts(asked), asked.ca_file)


def _timeouts(asked: settings.Upstream) -> Timeouts:
    waits = asked.timeouts
    return Timeouts(waits.connect_s, waits.first_byte_s, waits.between_bytes_s, waits.total_s, waits.pool_s)


def _health(label: str, asked: settings.BreakerSettings) -> Health:
    return Health(
        label,
        failures=asked.failures,
        first_pause_s=asked.first_pause_s,
        longest_pause_s=asked.longest_pause_s,
        longest_rest_s=asked.longest_rest_s,
    )


def _credential(auth: str, key: str) -> tuple[bytes, bytes] | None:
    if not key or auth == "none":
        return None
    if auth == "bearer":
        return b"authorization", b"Bearer " + key.encode()
    return auth.encode(), key.encode()
