"""An upstream that answers each request with the next script, and keeps what it was asked.

The last script repeats. A streamed script is a list of pieces; where `paced`, each but the first waits for `go_on`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from tests.support.odd_peer import Received, Visit, odd_peer
from tests.support.openai_wire import framed

SETTINGS = """
listen: {{ port: 0, shutdown_grace_s: 5, max_body_mb: 1 }}
data_dir: {data_dir}
redis: {{ url: "{redis_url}", namespace: tw, timeout_ms: 10000 }}
log: {{ requests: false }}
metering: {{ flush_interval_ms: 20 }}
upstreams:
  anthropic: {{ url: "http://127.0.0.1:{upstream_port}", api_key: upstream-secret, auth: x-api-key }}
  gemini: {{ url: "http://127.0.0.1:{upstream_port}", api_key: upstream-secret, auth: x-goog-api-key }}
routes:
  - {{ path: /v1/messages, methods: [POST], upstream: anthropic, dialect: anthropic, default_max_tokens: 100 }}
  - {{ path: /v1/messages/count_tokens, methods: [POST], upstream: anthropic, dialect: anthropic }}
  - {{ path: /v1/models/*, methods: [POST], upstream: gemini, dialect: gemini, default_max_tokens: 100 }}
  - {{ path: /v1/*, upstream: anthropic, dialect: plain }}
  - {{ path: /v1beta/models/*, upstream: gemini, dialect: gemini, default_max_tokens: 100 }}
  - {{ path: /v1beta/*, upstream: gemini, dialect: plain }}
tiers:
{tiers}
default_tier: free
"""


@dataclass(frozen=True, slots=True)
class Streamed:
    """A streamed answer. `paced` waits between pieces; `cut` drops the connection in place of its end."""

    pieces: Sequence[bytes]
    kind: str = "text/event-stream"
    paced: bool = False
    cut: bool = False


@dataclass(slots=True)
class Scripted:
    """The upstream's books. `sent` counts the pieces of streams."""

    scripts: list[bytes | Streamed]
    port: int = 0
    asked: list[Received] = field(default_factory=list)
    sent: int = 0
    go_on: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def serve(self, visit: Visit) -> None:
        """One connection, request by request."""
        while True:
            self.asked.append(await visit.request())
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
            if isinstance(script, bytes):
                await visit.say(script)
            else:
                await self._stream(visit, script)

    async def _stream(self, visit: Visit, script: Streamed) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {script.kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        await visit.say(head.encode())
        for number, piece in enumerate(script.pieces):
            if script.paced and number:
                await self.go_on.acquire()
            self.sent += 1
            await visit.say(framed(piece))
        if script.cut:
            raise EOFError
        await visit.say(framed(b""))


@contextlib.asynccontextmanager
async def scripted_upstream(*scripts: bytes | Streamed) -> AsyncIterator[Scripted]:
    """Listen on loopback."""
    upstream = Scripted(list(scripts))
    async with odd_peer(upstream.serve) as peer:
        upstream.port = peer.port
        yield upstream
