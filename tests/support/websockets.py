"""WebSocket servers for the gateway to reach, and clients' connections to it."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.support.stand import Stand

Handler = Callable[[ServerConnection], Awaitable[None]]


class Seen:
    """What the upstream saw of each handshake."""

    def __init__(self) -> None:
        self.handshakes: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.closes: list[int | None] = []


@contextlib.asynccontextmanager
async def upstream(handler: Handler, *, subprotocols: tuple[str, ...] = ()) -> AsyncIterator[tuple[int, Seen]]:
    """A WebSocket server on loopback."""
    seen = Seen()

    async def handle(link: ServerConnection) -> None:
        assert link.request is not None
        seen.handshakes.append({name.lower(): value for name, value in link.request.headers.raw_items()})
        seen.paths.append(link.request.path)
        with contextlib.suppress(ConnectionClosed):
            await handler(link)
        await link.wait_closed()
        seen.closes.append(link.close_code)

    offered = [Subprotocol(name) for name in subprotocols] or None
    async with serve(handle, "127.0.0.1", 0, subprotocols=offered, max_size=None) as server:
        yield next(iter(server.sockets)).getsockname()[1], seen


async def echo(link: ServerConnection) -> None:
    """Send back what comes."""
    async for message in link:
        await link.send(message)


def calling(here: Stand, key: str, path: str = "/v1/live", **more: object) -> connect:
    """A client's connection with a key."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    url = f"ws://127.0.0.1:{here.port}{path}"
    return connect(url, additional_headers=headers, proxy=None, max_size=None, **more)  # type: ignore[arg-type]


async def request_id(link: ClientConnection) -> str:
    """Of the handshake."""
    assert link.response is not None
    return link.response.headers["x-request-id"]
