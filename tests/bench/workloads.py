"""What the bench asks of each target: requests as an application sends them, and how many at once."""

import json
from dataclasses import dataclass
from typing import Literal

PATH = "/v1/chat/completions"
TLS_PATH = "/tls/v1/chat/completions"
"""What gateways forward to the upstream over TLS."""

CHUNKS = 100
SPACING_MS = 10
SLOW_MS = 10 * SPACING_MS
PROMPT = "Summarise the history of the turnpike in one paragraph. " * 4
LONG_PROMPT_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table. CPU is divided by answers, or by events where the answer is a stream."""

    name: str
    connections: int
    body: bytes
    meaning: str
    unit: Literal["answer", "event"] = "answer"
    refused: bool = False
    """Sent with the key of an account that has used up its plan: every answer must be a 429."""
    path: str = PATH
    warm_up: bytes = b""
    """The body to warm up with, where it isn't the same."""
    ramp_ms: int = SPACING_MS
    """Over which the connections are dialled."""

    @property
    def status(self) -> int:
        """The status that every answer must have."""
        return 429 if self.refused else 200


def json_body(prompt: str = PROMPT) -> bytes:
    """A chat request that is answered by one JSON document."""
    messages = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": prompt}]
    return json.dumps({"model": "gpt-4o-mini", "messages": messages, "max_tokens": 256}).encode()


def stream_body(chunks: int, pause: Literal["", " #spaced", " #slow"] = "") -> bytes:
    """A chat request that is answered by a stream; the prompt's last words tell the mock its shape."""
    prompt = f"{PROMPT} #mock chunks={chunks}{pause}"
    return json.dumps(
        {
            "model": "gpt-4o-mini",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 1024,
        }
    ).encode()


def _json(connections: int) -> Workload:
    return Workload(f"json{connections}", connections, json_body(), f"a small JSON answer, {connections} at once")


def _burst(at_once: int) -> Workload:
    meaning = f"streams of {CHUNKS} chunks as fast as they go, {at_once} at once"
    return Workload(f"burst{at_once}", at_once, stream_body(CHUNKS), meaning, "event")


def _spaced(at_once: int) -> Workload:
    meaning = f"streams of {CHUNKS} chunks, one each {SPACING_MS} ms, {at_once} at once"
    few = stream_body(CHUNKS // 10, " #spaced")
    return Workload(f"spaced{at_once}", at_once, stream_body(CHUNKS, " #spaced"), meaning, "event", warm_up=few)


LONG_PROMPT = (PROMPT * (LONG_PROMPT_BYTES // len(PROMPT) + 1))[:LONG_PROMPT_BYTES]
_WORKLOADS = (
    _json(1),
    _json(32),
    _json(256),
    Workload("tls32", 32, json_body(), "a small JSON answer of an upstream behind TLS, 32 at once", path=TLS_PATH),
    Workload("prompt32", 32, json_body(LONG_PROMPT), "a prompt of 100 KB, a small JSON answer, 32 at once"),
    Workload("refuse32", 32, json_body(), "a storm of refusals: every answer is a 429, 32 at once", refused=True),
    _burst(1),
    _burst(64),
    _burst(500),
    _spaced(1),
    _spaced(64),
    _spaced(256),
    _spaced(500),
)
WORKLOADS = {workload.name: workload for workload in _WORKLOADS}
QUICK = ("json1", "json32", "json256", "refuse32", "burst64", "spaced64")
