"""CORS preflights: a browser asks by OPTIONS, without a credential, whether a page may send its request.

Where the route passes them on they go upstream without the gateway's credential and without a body, are charged to
nobody, and the answer comes back as it is.
"""

import time
from collections.abc import Awaitable

from gateway.domain.usage import Outcome
from gateway.edge.attempts import Attempts, Body
from gateway.edge.exchange import Exchange
from gateway.edge.headers import forwarded, returned
from gateway.edge.reply import send_whole
from gateway.snapshot import Route
from gateway.upstream.target import Target
from gateway.upstream.transport import Answer, RawHeaders

MOST_BYTES = 65_536
"""Of the answer's body, which browsers don't read: a longer one is dropped."""


class Preflights(Attempts):
    """The attempts of one preflight, which no target can blame on its key."""

    def deliver(self, target: Target, path: bytes, body: Body) -> Awaitable[Answer]:
        """See `Attempts.deliver`."""
        del body
        return _ask(self.exchange, target, path)

    def denies(self, target: Target, status: int) -> bool:
        """See `Attempts.denies`."""
        del target, status
        return False


def is_preflight(method: str, headers: RawHeaders) -> bool:
    """Fetch standard, "CORS-preflight request"."""
    names = {name for name, _ in headers}
    return method == "OPTIONS" and b"origin" in names and b"access-control-request-method" in names


async def pass_preflight(exchange: Exchange, route: Route, path: bytes) -> None:
    """Ask the upstream, one target after another where the route has a choice. Raises Fault where none answers."""
    scope = exchange.scope
    path = path + b"?" + scope["query_string"] if scope["query_string"] else path
    if route.choice is None:
        answer = await _ask(exchange, route.target, path)
    else:
        until_s = time.monotonic() + route.choice.retry.total_s
        answer = await Preflights(exchange, route, route.choice, path, b"", until_s).answer()
    target = exchange.target or route.target
    try:
        exchange.record.upstream_status = answer.status
        body = await answer.read_all(MOST_BYTES)
    finally:
        answer.close()
    exchange.record.outcome = Outcome.OK
    own = [*returned(answer.headers, target), (b"x-request-id", exchange.request_id.encode())]
    await send_whole(exchange, answer.status, own, body or b"")


def _ask(exchange: Exchange, target: Target, path: bytes) -> Awaitable[Answer]:
    headers = forwarded(exchange.scope["headers"], target, exchange.request_id.encode(), plain_answer=True)
    headers = [field for field in headers if field != target.credential]
    return target.transport.send(b"OPTIONS", path, headers, b"")
