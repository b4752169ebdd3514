"""uvicorn's server with the gateway's own HTTP protocol around any ASGI app, and a client that says exact bytes."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import uvicorn
from uvicorn.server import ServerState

from gateway.edge.exchange import Receive, Scope, Send
from gateway.edge.http_limits import Patience
from gateway.edge.http_protocol import HttpProtocol
from tests.support.until import until

App = Callable[[Scope, Receive, Send], Any]
HOST = b"Host: a\r\n"
OK = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
STREAM = {"type": "http.response.start", "status": 200, "headers": []}
UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
"""The head of a request whose body is to follow."""


class HurriedProtocol(HttpProtocol):
    """Waits for nothing longer than a test can."""

    patience = Patience(head_s=0.2, body_s=0.2, answer_s=0.2, discard_s=0.2, linger_s=0.2)


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    port: int
    server: uvicorn.Server

    @property
    def state(self) -> ServerState:
        """What uvicorn knows of its connections and tasks."""
        return self.server.server_state


@dataclass(frozen=True, slots=True)
class Got:
    """One answer as it came over the wire; `body` has its transfer coding undone."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes

    @property
    def seen(self) -> dict[str, Any]:
        """What `echo` says about the request."""
        seen: dict[str, Any] = msgspec.json.decode(self.body)
        return seen

    @property
    def error(self) -> dict[str, Any]:
        """The error of an answer in OpenAI's shape."""
        error: dict[str, Any] = msgspec.json.decode(self.body)["error"]
        return error


class Caller:
    """A raw connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, *pieces: bytes) -> None:
        """Send bytes, each piece in a segment of its own as far as TCP allows."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            if len(pieces) > 1:
                await asyncio.sleep(0)
                await asyncio.sleep(0)

    async def answer(self, *, head_only: bool = False) -> Got:
        """Read one answer. Raises EOFError where the connection ends before it does."""
        line, *lines = (await self.reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        fields = dict(text.split(b": ", 1) for text in lines)
        assert len(fields) == len(lines), "a field came twice"
        status = int(line.split()[1])
        body = b""
        if not head_only and status >= 200 and status not in {204, 304}:
            body = await self._body(fields)
        return Got(status, fields, body)

    async def _body(self, fields: dict[bytes, bytes]) -> bytes:
        if b"content-length" in fields:
            assert b"transfer-encoding" not in fields
            return await self.reader.readexactly(int(fields[b"content-length"]))
        if b"transfer-encoding" not in fields:
            return await self.reader.read()
        pieces = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            pieces.append(await self.reader.readexactly(size))
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"
        return b"".join(pieces)

    async def rest(self) -> bytes:
        """Everything until the server ends the connection. Raises OSError where it does so by a reset."""
        return await self.reader.read()


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer by JSON with what was asked."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message["body"]
        more = message["more_body"]
    seen = {name: scope[name] for name in ("method", "path", "http_version", "scheme", "client", "server", "state")}
    seen |= {"raw_path": scope["raw_path"].decode(), "query": scope["query_string"].decode(), "body": len(body)}
    seen["headers"] = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    text = msgspec.json.encode(seen)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


class Gate:
    """An application that answers `ok` when it is let, and knows how it was left."""

    def __init__(self, *, stream: bool = False) -> None:
        self.stream = stream
        self.reached, self.opened, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        while (await receive()).get("more_body"):
            pass
        if self.stream:
            await send(STREAM)
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
        self.reached.set()
        leaving, opening = asyncio.ensure_future(receive()), asyncio.ensure_future(self.opened.wait())
        await asyncio.wait((leaving, opening), return_when=asyncio.FIRST_COMPLETED)
        opening.cancel()
        if leaving.done():
            assert leaving.result()["type"] == "http.disconnect"
            self.left.set()
        if not self.stream:
            await send(OK)
        await send({"type": "http.response.body", "body": b"ok"})
        assert (await leaving)["type"] == "http.disconnect"


@contextlib.asynccontextmanager
async def served(
    app: App, *, protocol: type[HttpProtocol] = HttpProtocol, tls: ssl.SSLContext | None = None, **settings: Any
) -> AsyncIterator[Served]:
    """Listen on loopback; stop gracefully at the end."""
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=5,
        **settings,
    )
    config.load()
    config.ssl = tls
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(512)
    await server.startup([listening])
    try:
        yield Served(listening.getsockname()[1], server)
    finally:
        await server.shutdown([listening])


@contextlib.asynccontextmanager
async def calling(served: Served, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Caller]:
    """Connect; close at the end."""
    host = "localhost" if tls else None
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=tls, server_hostname=host)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def get(target: bytes = b"/", *fields: bytes) -> bytes:
    """A GET; each field is a line without its end."""
    return b"".join([b"GET %b HTTP/1.1\r\n" % target, HOST, *(field + b"\r\n" for field in fields), b"\r\n"])


def post(body: bytes, target: bytes = b"/", *fields: bytes) -> bytes:
    """A POST with its length."""
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%b\r\n%b" % (target, len(body), lines, body)


async def gone(server: Served) -> None:
    """Wait until no connection is left."""

    async def none() -> bool:
        return not server.state.connections

    await until(none)
