"""A WebSocket's handshake with an upstream; where the route has a choice, with one target after another.

Promises: the caller's credential never goes upstream, in whichever of the four places a client put it; an upgrade is
answered once, by the first target that takes it or by the last that would not. Fails with Fault as any attempt does.
"""

import time
from collections.abc import Awaitable

from gateway.domain.faults import INVALID_HEADER
from gateway.edge.attempts import Attempts, Body
from gateway.edge.exchange import Exchange
from gateway.edge.headers import forwarded
from gateway.edge.query_key import without_key
from gateway.edge.subprotocols import without_offered_key
from gateway.snapshot import Route
from gateway.upstream.target import Target
from gateway.upstream.transport import Answer, Unsent
from gateway.upstream.tunnel import Opened

EXTENSIONS = b"sec-websocket-extensions"


def takes_websockets(route: Route) -> bool:
    """Whether one of its targets can be asked for a WebSocket."""
    if route.choice is None:
        return route.target.tunnels is not None
    return any(member.target.tunnels for upstream in route.choice.upstreams for member in upstream.members)


async def shake_hands(exchange: Exchange, route: Route, path: bytes, query: bytes) -> tuple[Answer, Opened | None]:
    """The answer, to be read and closed; where its status is 101, what was opened as well."""
    query = without_key(query)
    target = path + b"?" + query if query else path
    if route.choice is None:
        opened = await _open(exchange, route, route.target, target)
        return opened, opened
    until_s = time.monotonic() + route.choice.retry.total_s
    attempts = Handshakes(exchange, route, route.choice, target, b"", until_s, exchange.record.model)
    answer = await attempts.answer()
    return answer, attempts.opened


class Handshakes(Attempts):
    """The attempts of one handshake. `opened` is what the last target that answered said."""

    opened: Opened | None = None

    def deliver(self, target: Target, path: bytes, body: Body) -> Awaitable[Answer]:
        """See `Attempts.deliver`."""
        del body
        return self._opened_by(target, path)

    async def _opened_by(self, target: Target, path: bytes) -> Answer:
        opened = self.opened = await _open(self.exchange, self.route, target, path)
        return opened


async def _open(exchange: Exchange, route: Route, target: Target, path: bytes) -> Opened:
    if target.tunnels is None:
        raise Unsent(INVALID_HEADER, f"{target.name} has no tunnels", public="This route takes no WebSocket.")
    headers = forwarded(exchange.scope["headers"], target, exchange.request_id.encode(), plain_answer=False)
    headers = without_offered_key(headers)
    if route.reads_body:  # its frames are read in passing, so they are asked for uncompressed
        headers = [field for field in headers if field[0] != EXTENSIONS]
    return await target.tunnels.open(path, headers)
