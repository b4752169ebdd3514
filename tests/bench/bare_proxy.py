"""The floors of the bench: a proxy on Tollway's transport with none of its duties, on one of two servers.

No key, no limit, no count: one bare ASGI app behind uvicorn's own protocol (`httptools`) or the gateway's (`tollway`).
What Tollway costs above the latter is the price of its duties. Run as
`python -m tests.bench.bare_proxy PORT PROTOCOL UPSTREAM_URL [TLS_URL CA_FILE]`; paths below /tls/ go to TLS_URL.
"""

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from gateway.edge.http_protocol import HttpProtocol
from gateway.upstream.lean_transport import LeanTransport
from gateway.upstream.origin import origin_of
from gateway.upstream.tls import verifying_context
from gateway.upstream.transport import RawHeaders, Timeouts, Transport

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
NOT_FORWARDED = frozenset({b"host", b"content-length", b"connection", b"transfer-encoding"})
MAX_CONNECTIONS = 4096


PROTOCOLS: dict[str, Any] = {"httptools": "httptools", "tollway": HttpProtocol}


class BareProxy:
    """Forwards every request, whole, and hands back the answer as it comes."""

    def __init__(self, upstream_url: str, tls_url: str = "", ca_file: str = "") -> None:
        self._url, self._tls_url, self._ca_file = upstream_url, tls_url, ca_file
        self._plain: Transport | None = None
        self._tls: Transport | None = None

    def _transport(self, path: str) -> Transport:
        # Made inside the loop that serves, at the first request.
        if path.startswith("/tls/"):
            if self._tls is None:
                context = verifying_context(self._ca_file)
                self._tls = LeanTransport(origin_of(self._tls_url), Timeouts(), ssl_context=context)
            return self._tls
        if self._plain is None:
            self._plain = LeanTransport(origin_of(self._url), Timeouts(), max_connections=MAX_CONNECTIONS)
        return self._plain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or nothing for the events of the server's own life."""
        if scope["type"] != "http":
            return
        answer = await self._transport(scope["path"]).send(
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
        BareProxy(*sys.argv[3:]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http=PROTOCOLS[sys.argv[2]],
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
    )
