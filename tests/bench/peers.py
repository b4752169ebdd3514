"""The targets that the others are held against: the mock itself, two bare proxies, and on request LiteLLM."""

import sys
from functools import partial
from pathlib import Path

from tests.bench.processes import free_port, installed
from tests.bench.target import BEARER, Candidate, Ground, Target, serve
from tests.bench.valkey import valkey

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


def start_proxy(name: str, protocol: str, ground: Ground) -> Target:
    """The proxy of `bare_proxy.py`, on one of its server protocols."""
    port, tls = free_port(), ground.tls
    command: list[str | Path] = [sys.executable, "-m", "tests.bench.bare_proxy", str(port), protocol, ground.mock_url]
    command += [tls.url, tls.ca_file] if tls else []
    return Target(name, port, serve(ground, name, command, port, BEARER), tls=tls is not None)


def start_litellm(ground: Ground) -> Target:
    """LiteLLM's proxy with one worker, a master key and Redis, without a database."""
    port, scratch = free_port(), ground.directory("litellm")
    program = installed(ground.cache / "litellm", "litellm[proxy]", "litellm")
    redis = ground.stack.enter_context(valkey(ground.directory("litellm-valkey"), ground.cores.others))
    config = scratch / "litellm.yaml"
    config.write_text(LITELLM_CONFIG.format(mock_url=ground.mock_url, redis_url=redis.url))
    command: list[str | Path] = [program, "--config", config, "--port", str(port), "--host", "127.0.0.1"]
    environ = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    pid = serve(ground, "litellm", [*command, "--num_workers", "1"], port, BEARER, environ)
    return Target("litellm", port, pid, valkey=redis)


def _nothing() -> str:
    return ""


DIRECT = Candidate("direct", "no gateway; its CPU is the mock's own", _nothing, start_direct)
BARE = Candidate(
    "bare", "uvicorn's server, Tollway's transport, no duties", _nothing, partial(start_proxy, "bare", "httptools")
)
LEAN = Candidate("lean", "Tollway's server and transport, no duties", _nothing, partial(start_proxy, "lean", "tollway"))
LITELLM = Candidate("litellm", "master key, router limits in Redis, no database", _nothing, start_litellm, opt_in=True)
