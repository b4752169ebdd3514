"""Both transports behind one call, for suites that each must pass."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Literal

from gateway.upstream.httpx_transport import HttpxTransport
from gateway.upstream.lean_transport import LeanTransport
from gateway.upstream.origin import origin_of
from gateway.upstream.transport import Answer, RawHeaders, Timeouts, Transport

Kind = Literal["lean", "httpx"]
KINDS: tuple[Kind, ...] = ("lean", "httpx")
PATIENT = Timeouts(connect_s=20, first_byte_s=20, between_bytes_s=20, pool_s=20)
"""For tests in which nothing must time out: long enough for a busy machine, short enough to end."""

NOBODY = 1
"""A port at which nobody listens."""


@contextlib.asynccontextmanager
async def transport_to(
    kind: Kind,
    port: int,
    *,
    timeouts: Timeouts = PATIENT,
    max_connections: int = 8,
    idle_s: float = 5.0,
    base_path: str = "",
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[Transport]:
    """A transport to a port of this machine; TLS where `tls` is given. Closed at the end."""
    origin = origin_of(f"{'https' if tls else 'http'}://{host}:{port}{base_path}")
    make = LeanTransport if kind == "lean" else HttpxTransport
    transport: Transport = make(origin, timeouts, max_connections=max_connections, idle_s=idle_s, ssl_context=tls)
    try:
        yield transport
    finally:
        await transport.aclose()


async def get(transport: Transport, target: bytes = b"/") -> Answer:
    """A GET without fields or body."""
    return await transport.send(b"GET", target, [], b"")


async def body_of(answer: Answer) -> bytes:
    """The whole body, read piece by piece."""
    pieces = []
    while piece := await answer.read():
        pieces.append(piece)
    return b"".join(pieces)


class _Nowhere:
    """A transport that is never used."""

    async def send(
        self,
        method: bytes,
        target: bytes,
        headers: RawHeaders,
        body: bytes | AsyncIterator[bytes],
        length: int | None = None,
    ) -> Answer:
        """Not to be asked."""
        raise AssertionError(method, target, headers, body, length)

    def connections(self) -> tuple[int, int]:
        """None."""
        return 0, 0

    async def aclose(self) -> None:
        """Nothing to close."""


NOWHERE: Transport = _Nowhere()
"""For what needs a target, but sends nothing."""
