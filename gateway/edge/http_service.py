"""What the connections of one server share: the application, its limits, and one coarse sweep for all their waits."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.edge.http_limits import Patience
from gateway.upstream.coarse_clock import CoarseClock


class Waiting(Protocol):
    """A connection with a deadline on the service's clock."""

    deadline: float

    def expire(self) -> None:
        """The deadline is over."""
        ...


class HttpService:
    """Made inside the loop that serves, once for a server. The sweep runs while there are connections."""

    def __init__(self, config: Config, state: ServerState, app_state: dict[str, Any], patience: Patience) -> None:
        if not config.loaded:
            config.load()
        self.loop = asyncio.get_running_loop()
        self.create_task = self.loop.create_task
        self.app: Callable[..., Any] = config.loaded_app
        self.patience = patience
        self.keep_alive_s = float(config.timeout_keep_alive)
        self.most_connections = config.limit_concurrency
        self.connections: set[Any] = state.connections
        self.tasks: set[asyncio.Task[None]] = state.tasks
        shortest_s = min(self.keep_alive_s or 1.0, patience.head_s, patience.body_s, patience.answer_s)
        self.clock = CoarseClock(self.loop.time(), min(shortest_s, patience.discard_s, patience.linger_s))
        self._sweeping = False
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "root_path": config.root_path,
            "method": "",
            "path": "",
            "raw_path": b"",
            "query_string": b"",
            "headers": [],
            "state": app_state,
        }

    def scope(self, transport: asyncio.BaseTransport) -> dict[str, Any]:
        """What the scopes of all requests of a connection have in common, with a place for what they don't."""
        return {
            **self._scope,
            "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
            "server": _address(transport.get_extra_info("sockname")),
            "client": _address(transport.get_extra_info("peername")),
        }

    def join(self, connection: Waiting) -> None:
        """Serve a new connection."""
        self.connections.add(connection)
        if not self._sweeping:
            self._sweeping = True
            self._sweep()

    def _sweep(self) -> None:
        self.clock.advance(self.loop.time())
        now = self.clock.now
        for connection in [waiting for waiting in self.connections if waiting.deadline <= now]:
            connection.expire()
        self._sweeping = bool(self.connections)
        if self._sweeping:
            self.loop.call_later(self.clock.interval_s, self._sweep)


def _address(name: object) -> tuple[str, int | None] | None:
    """ASGI's pair for a socket's name; a Unix socket's path has no port."""
    if isinstance(name, tuple):
        return str(name[0]), int(name[1])
    return (name, None) if isinstance(name, str) and name else None


_services: "WeakKeyDictionary[ServerState, HttpService]" = WeakKeyDictionary()


def service_of(config: Config, state: ServerState, app_state: dict[str, Any], patience: Patience) -> HttpService:
    """The service of the server that `state` belongs to."""
    service = _services.get(state)
    if service is None:
        service = _services[state] = HttpService(config, state, app_state, patience)
    return service
