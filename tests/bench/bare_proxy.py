"""The floor of the bench: a proxy with Tollway's own server protocol and transport and none of its duties.

No key, no limit, no count: uvicorn with the gateway's protocol, one bare ASGI app and the lean transport. What Tollway
costs above this proxy is the price of its duties. Run as `python -m tests.bench.bare_proxy PORT UPSTREAM_URL`.
"""

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from gateway.edge.http_protocol import HttpProtocol
from gateway.upstream.lean_transport import LeanTransport
from gateway.upstream.origin import origin_of
from gateway.upstream.transport import RawHeaders, Timeouts, Transport

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
NOT_FORWARDED = frozenset({b"host", b"content-length", b"connection", b"transfer-encoding"})


class BareProxy:
    """Forwards every request, whole, and hands back the answer as it comes."""

    def __init__(self, upstream_url: str) -> None:
        self._url = upstream_url
        self._transport: Transport | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or nothing for the events of the server's own life."""
        if scope["type"] != "http":
            return
        if self._transport is None:
            self._transport = LeanTransport(origin_of(self._url), Timeouts())
        answer = await self._transport.send(
            scope["method"].encode(), scope["raw_path"], _forwarded(scope["headers"]), await _body(receive)
        )
        length = [pair for pair in answer.headers if pair[0] == b"content-length"]
        headers = _forwarded(answer.headers) + length
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        while chunk := await answer.read():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _forwarded(headers: RawHeaders) -> RawHeaders:
    return [pair for pair in headers if pair[0] not in NOT_FORWARDED]


async def _body(receive: Receive) -> bytes:
    message = await receive()
    if not message.get("more_body"):
        whole: bytes = message.get("body", b"")
        return whole
    parts = [message["body"]]
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
    return b"".join(parts)


if __name__ == "__main__":
    uvicorn.run(
        BareProxy(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http=HttpProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
    )
