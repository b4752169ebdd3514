"""CORS preflights: a browser asks by OPTIONS, without a credential, whether a page may send its request.

Where the route passes them on they go upstream without the gateway's credential and without a body, are charged to
nobody, and the answer comes back as it is.
"""

from gateway.domain.usage import Outcome
from gateway.edge.exchange import Exchange
from gateway.edge.headers import forwarded, returned
from gateway.edge.reply import send_whole
from gateway.snapshot import Route
from gateway.upstream.transport import RawHeaders

MOST_BYTES = 65_536
"""Of the answer's body, which browsers don't read: a longer one is dropped."""


def is_preflight(method: str, headers: RawHeaders) -> bool:
    """Fetch standard, "CORS-preflight request"."""
    names = {name for name, _ in headers}
    return method == "OPTIONS" and b"origin" in names and b"access-control-request-method" in names


async def pass_preflight(exchange: Exchange, route: Route, path: bytes) -> None:
    """Ask the upstream. Raises Fault where it gives no answer."""
    scope, target = exchange.scope, route.target
    headers = forwarded(scope["headers"], target, exchange.request_id.encode(), plain_answer=True)
    headers = [field for field in headers if field != target.credential]
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    answer = await target.transport.send(b"OPTIONS", path + query, headers, b"")
    try:
        exchange.record.upstream_status = answer.status
        body = await answer.read_all(MOST_BYTES)
    finally:
        answer.close()
    exchange.record.outcome = Outcome.OK
    own = [*returned(answer.headers, target), (b"x-request-id", exchange.request_id.encode())]
    await send_whole(exchange, answer.status, own, body or b"")
