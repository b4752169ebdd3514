"""Reads a request's body: whole where it has to be understood, piece by piece where it only passes."""

from collections.abc import AsyncIterator

from gateway.domain.faults import BODY_TOO_LARGE, CLIENT_GONE, Fault
from gateway.edge.exchange import Exchange
from gateway.upstream.transport import RawHeaders

PASSING_BYTES = 65_536
"""A body of a plain route that is announced to be no longer than this is read whole: it then can be sent twice."""


def announced_bytes(headers: RawHeaders) -> int | None:
    """The length of the body as its head tells it: 0 without one, None for a body of unknown length."""
    length: int | None = 0
    for name, value in headers:
        if name == b"content-length":
            return int(value)
        if name == b"transfer-encoding":
            length = None
    return length


def length_of(exchange: Exchange, body: bytes | AsyncIterator[bytes]) -> int | None:
    """How long a body that passes was announced to be; None where nobody said, and where the bytes are here."""
    return None if isinstance(body, bytes) else announced_bytes(exchange.scope["headers"])


def is_awaited(exchange: Exchange) -> bool:
    """Whether the caller waits to be asked for the body: it isn't before the request was admitted."""
    return any(name == b"expect" for name, _ in exchange.scope["headers"])


async def read_whole(exchange: Exchange, announced: int | None, at_most: int) -> bytes:
    """The whole body. Raises Fault: BODY_TOO_LARGE, CLIENT_GONE."""
    if announced == 0:
        return b""
    if announced is not None and announced > at_most:
        raise _too_large(at_most)
    message = await exchange.receive()
    if message["type"] != "http.request":
        raise Fault(CLIENT_GONE)
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        pieces, size = [body], len(body)
        async for piece in _pieces(exchange):
            size += len(piece)
            if size > at_most:
                raise _too_large(at_most)
            pieces.append(piece)
        body = b"".join(pieces)
    if len(body) > at_most:
        raise _too_large(at_most)
    return body


async def pass_on(exchange: Exchange) -> AsyncIterator[bytes]:
    """The body as it comes, at the pace at which it is taken. Raises Fault(CLIENT_GONE)."""
    async for piece in _pieces(exchange):
        exchange.record.request_bytes += len(piece)
        yield piece


async def _pieces(exchange: Exchange) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await exchange.receive()
        if message["type"] != "http.request":
            raise Fault(CLIENT_GONE)
        more = message.get("more_body", False)
        if message.get("body"):
            yield message["body"]


def _too_large(at_most: int) -> Fault:
    return Fault(BODY_TOO_LARGE, public=f"The request body is larger than the {at_most} bytes that this gateway takes.")
