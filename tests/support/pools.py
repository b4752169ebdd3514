"""Upstreams of several scripted targets behind one gateway: what each was asked, and settings that name them all."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.odd_peer import Received, Script, Visit, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.stand import TIERS, Stand, stand
from tests.support.truth_balance import PROMPT, bearer
from tests.support.valkey import ValkeyServer

NOBODY = 1
"""A port at which nobody listens."""

FINE = http(completion(prompt=9, output=4))


def pool_settings(ports: list[int], *, more: str = "", breaker: str = "failures: 2", fallback: int = 0) -> str:
    """`main` of all ports but the last `fallback` ones, which are the upstream `second`."""
    first = ports[: len(ports) - fallback]
    targets = ", ".join(f'{{{{ url: "http://127.0.0.1:{port}" }}}}' for port in first)
    second = ", ".join(f'{{{{ url: "http://127.0.0.1:{port}", api_key: other }}}}' for port in ports[len(first) :])
    other = f"  second: {{{{ targets: [{second}], models: {{{{ m: its-m }}}} }}}}\n" if second else ""
    fall = ", fallback: [second]" if second else ""
    return f"""
listen: {{{{ port: 0, shutdown_grace_s: 5, max_body_mb: 1 }}}}
data_dir: {{data_dir}}
redis: {{{{ url: "{{redis_url}}", namespace: tw }}}}
log: {{{{ requests: false }}}}
metering: {{{{ flush_interval_ms: 20 }}}}
upstreams:
  main:
    targets: [{targets}]
    api_key: upstream-secret
    timeouts: {{{{ connect_s: 20, first_byte_s: 20, between_bytes_s: 20 }}}}
    breaker: {{{{ {breaker} }}}}
{more}
{other}routes:
  - {{{{ path: /v1/chat/completions, upstream: main, dialect: openai, default_max_tokens: 100{fall} }}}}
  - {{{{ path: /v1/*, upstream: main, dialect: plain{fall} }}}}
tiers:
{{tiers}}
default_tier: free
"""


@dataclass(slots=True)
class Pool:
    """A gateway and its targets, each with the requests that arrived there."""

    here: Stand
    seen: list[list[Received]]
    key: str

    @property
    def asked(self) -> list[int]:
        """How many requests arrived at each target."""
        return [len(requests) for requests in self.seen]

    async def ask(self, path: str = "/v1/chat/completions", **fields: object) -> tuple[int, dict[str, str], bytes]:
        """Send a chat request; status, fields and body of its answer."""
        answer = await self.here.client.post(path, json=PROMPT | fields, headers=bearer(self.key))
        return answer.status_code, dict(answer.headers), answer.content


class _Noting(Visit):
    """A visit whose requests are noted."""

    def __init__(self, visit: Visit, seen: list[Received]) -> None:
        super().__init__(visit.reader, visit.writer)
        self._seen = seen

    async def request(self) -> Received:
        """Read one whole request, and note it."""
        received = await super().request()
        self._seen.append(received)
        return received


def _noting(script: Script, seen: list[Received]) -> Script:
    async def play(visit: Visit) -> None:
        await script(_Noting(visit, seen))

    return play


@contextlib.asynccontextmanager
async def pool(
    directory: Path,
    valkey: ValkeyServer,
    *scripts: Script | None,
    more: str = "",
    breaker: str = "failures: 2",
    fallback: int = 0,
    tiers: str = TIERS,
) -> AsyncIterator[Pool]:
    """A gateway before targets that play scripts; None is one that nobody listens at."""
    async with contextlib.AsyncExitStack() as stack:
        seen: list[list[Received]] = [[] for _ in scripts]
        ports = []
        for script, requests in zip(scripts, seen, strict=True):
            peer = None if script is None else await stack.enter_async_context(odd_peer(_noting(script, requests)))
            ports.append(NOBODY if peer is None else peer.port)
        settings = pool_settings(ports, more=more, breaker=breaker, fallback=fallback)
        here = await stack.enter_async_context(stand(directory, valkey, 0, settings=settings, tiers=tiers))
        yield Pool(here, seen, await here.account())
