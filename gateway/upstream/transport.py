"""The transport port: one HTTP/1.1-shaped exchange with an upstream. Bytes in; status, raw headers and chunks out.

Two implementations pass one contract suite (`tests/contract/test_transport.py`): `lean_transport`, on httptools, for
plain HTTP/1.1 with or without TLS, and `httpx_transport`, for HTTP/2 and forward proxies. Whatever a peer does, a call
ends in an answer or in a `Fault` (UPSTREAM_REFUSED, UPSTREAM_BROKEN, UPSTREAM_TIMEOUT, UPSTREAM_BUSY), never in a hang.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from gateway.domain.faults import Fault

RawHeaders = list[tuple[bytes, bytes]]
"""Header fields in order; names in lower case, values without outer white space. Repeats stay apart."""


class Unsent(Fault):
    """The request never left: no connection was had for it. To send it elsewhere doubles nothing."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `total_s` 0 is unbounded: a stream may run for hours while bytes keep coming."""

    connect_s: float = 5.0
    first_byte_s: float = 120.0
    between_bytes_s: float = 60.0
    total_s: float = 0.0
    pool_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an upstream listens. `base_path` is put before each request's path; it has no trailing slash."""

    scheme: str
    host: str
    port: int
    base_path: str = ""


class Answer(Protocol):
    """An upstream's answer, its head read. The caller must read it to its end or `close` it."""

    status: int
    headers: RawHeaders

    async def read(self) -> bytes:
        """The body bytes that have arrived, waiting for the first; b"" at the end. Transfer coding is undone,
        content coding is not. Raises Fault when the upstream cuts, stalls or breaks HTTP.
        """  # noqa: D205
        ...

    async def read_all(self, at_most: int) -> bytes | None:
        """The whole body, or None once it is seen to exceed `at_most` bytes; what was read comes again from `read`."""
        ...

    def close(self) -> None:
        """Done with it. A connection whose answer was not read to the end is closed, not reused. Idempotent."""
        ...


class Transport(Protocol):
    """Sends requests to one origin over pooled connections."""

    async def send(
        self,
        method: bytes,
        target: bytes,
        headers: RawHeaders,
        body: bytes | AsyncIterator[bytes],
        length: int | None = None,
    ) -> Answer:
        """Send a request and return once the answer's head (past any 1xx) is here.

        `target` is path and query as they go on the wire; the transport puts the origin's `base_path` before it and
        adds `host` and the framing of the body, so `headers` carries neither: `content-length` for bytes and for an
        iterator whose `length` in bytes is known, else chunked. Raises `Unsent` where no connection was had.

        An iterator that gives less or more than `length` is a Fault (CLIENT_GONE), and the connection is closed: a
        part of a body is never passed as the whole.

        A request whose body is bytes is sent again, once, on a fresh connection when a reused one dies before any
        answer byte: whatever its method, as what closes an idle connection just then has, as a rule, not read it.
        """
        ...

    def connections(self) -> tuple[int, int]:
        """How many connections are open, and how many of these wait for a request."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
