"""The first lines that a client's request meets: Tollway's own paths go to metering or the console, all others to the
proxy.
"""  # noqa: D205

from collections.abc import Awaitable, Callable

from gateway.edge.client_address import ClientAddress
from gateway.edge.exchange import Receive, Scope, Send
from gateway.edge.metering import VERBS

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Entry:
    """The ASGI app of a worker.

    `prefix` is the path under which the console lives; a POST to one of `VERBS` below it is for `metering`. `addresses`
    finds who is behind proxies.
    """

    def __init__(
        self, prefix: str, console: App, proxy: App, metering: App, addresses: ClientAddress | None = None
    ) -> None:
        self._prefix = prefix
        self._below = prefix + "/"
        self._console = console
        self._proxy = proxy
        self._metering = metering
        self._metered = frozenset(f"{prefix}/{verb}" for verb in VERBS)
        self._addresses = addresses

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        if self._addresses is not None:
            scope["client"] = self._addresses.client(scope)
        path: str = scope["path"]
        if path.startswith(self._below) or path == self._prefix:
            if path in self._metered and scope.get("method") == "POST":
                return self._metering(scope, receive, send)
            return self._console(scope, receive, send)
        return self._proxy(scope, receive, send)
