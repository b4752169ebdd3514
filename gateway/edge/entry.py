"""The first lines that a client's request meets: Tollway's own paths go to the console, all others to the proxy."""

from collections.abc import Awaitable, Callable

from gateway.edge.client_address import ClientAddress
from gateway.edge.exchange import Receive, Scope, Send

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Entry:
    """The ASGI app of a worker. Under `prefix` lives the console; `addresses` finds who is behind proxies."""

    def __init__(self, prefix: str, console: App, proxy: App, addresses: ClientAddress | None = None) -> None:
        self._prefix = prefix
        self._below = prefix + "/"
        self._console = console
        self._proxy = proxy
        self._addresses = addresses

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        if self._addresses is not None:
            scope["client"] = self._addresses.client(scope)
        path: str = scope["path"]
        if path.startswith(self._below) or path == self._prefix:
            return self._console(scope, receive, send)
        return self._proxy(scope, receive, send)
