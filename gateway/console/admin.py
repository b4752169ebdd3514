"""The admin API over HTTP, under `{prefix}/admin`. There is none unless the admin token is set.

Whoever brings the token may do all of it; anybody else is refused, logged and counted, with whatever key. Bodies and
queries are typed: what isn't known is refused, and the text names the field. Every change is audited as `admin`, or
`admin:NAME` for who says who they are in `X-Tollway-Actor`, with the request's id.
"""

import hmac
import re
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.console.admin_bodies import in_words
from gateway.console.admin_desk import Desk
from gateway.console.admin_endpoints import ENDPOINTS, Call, Endpoint
from gateway.console.openapi import document
from gateway.console.replies import answer, parameters, request_id_of
from gateway.console.services import Services
from gateway.domain.audit import Actor
from gateway.domain.faults import ADMIN_ONLY, BODY_TOO_LARGE, INVALID_BODY, UNKNOWN_PARAMETER, Fault
from gateway.identity.keys import key_id_of
from gateway.telemetry.log import log

MOST_BODY_BYTES = 1024 * 1024
_ACTOR = re.compile(r"[A-Za-z0-9._@+-]{1,64}")
_WANTS_TOKEN = "The admin API is for who sends the admin token: `Authorization: Bearer …`."  # noqa: S105  # a text


def admin_routes(services: Services) -> list[Route]:
    """The routes; none without an admin token."""
    if not services.admin_token:
        return []
    root, pages = f"{services.prefix}/admin", AdminPages(services)
    by_path: defaultdict[str, dict[str, Endpoint]] = defaultdict(dict)
    for endpoint in ENDPOINTS:
        by_path[endpoint.path][endpoint.method] = endpoint
    routes = [Route(root + path, pages.page(endpoints), methods=list(endpoints)) for path, endpoints in by_path.items()]
    return [Route(f"{root}/openapi.json", pages.openapi), *routes]


class AdminPages:
    """Serves the table of endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._desk = services.desk
        self._document = msgspec.json.encode(document(services.prefix, version("tollway")))

    def page(self, endpoints: Mapping[str, Endpoint]) -> Any:
        """What serves one path: its endpoints by their method."""

        async def serve(request: Request) -> Response:
            self._admit(request)
            endpoint = endpoints["GET" if request.method == "HEAD" else request.method]
            told = await endpoint.serve(await _call(self._desk, endpoint, request))
            return answer(request, msgspec.json.encode(told), endpoint.status)

        return serve

    async def openapi(self, request: Request) -> Response:
        """`GET openapi.json`."""
        self._admit(request)
        parameters(request)
        return answer(request, self._document)

    def _admit(self, request: Request) -> None:
        """Raise Fault(ADMIN_ONLY) unless the request brings the admin token."""
        given = request.headers.get("authorization", "").encode("latin-1")
        if hmac.compare_digest(given, f"Bearer {self._services.admin_token}".encode()):
            return
        self._services.admin_refused()
        key_id = key_id_of(given.partition(b" ")[2])
        client = request.client.host if request.client else ""
        log.warning(
            "admin_refused", request_id=request_id_of(request), path=request.url.path, client=client, key=key_id or ""
        )
        raise Fault(ADMIN_ONLY, public=_WANTS_TOKEN)


async def _call(desk: Desk, endpoint: Endpoint, request: Request) -> Call:
    query = parameters(request, *endpoint.query.__struct_fields__)  # type: ignore[attr-defined]  # a Struct's
    try:
        asked: Any = msgspec.convert(query, endpoint.query, strict=False)
    except msgspec.ValidationError as error:
        raise Fault(UNKNOWN_PARAMETER, public=f"The query: {in_words(error)}.") from error
    name = request.path_params.get(endpoint.name, "")
    return Call(desk, name, asked, await _body(endpoint, request), _actor(request))


async def _body(endpoint: Endpoint, request: Request) -> Any:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MOST_BODY_BYTES:
            raise Fault(BODY_TOO_LARGE, public="A body of the admin API has at most 1 MiB.")
    if endpoint.body is None:
        if raw.strip():
            raise Fault(INVALID_BODY, public="This takes no body.")
        return None
    try:
        return msgspec.json.decode(bytes(raw) or b"{}", type=endpoint.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Fault(INVALID_BODY, public=f"The body: {in_words(error)}.") from error


def _actor(request: Request) -> Actor:
    name = request.headers.get("x-tollway-actor", "")
    if name and not _ACTOR.fullmatch(name):
        raise Fault(INVALID_BODY, public="`X-Tollway-Actor` is 1 to 64 letters, digits and . _ @ + -")
    return Actor(f"admin:{name}" if name else "admin", request_id_of(request))
