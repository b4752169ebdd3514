"""How the console answers: JSON that no cache keeps, a request id on everything, one shape for every error."""

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.domain.faults import (
    INTERNAL,
    INVALID_BODY,
    METHOD_NOT_ALLOWED,
    MISSING_KEY,
    NOT_FOUND,
    UNKNOWN_PARAMETER,
    Fault,
    FaultKind,
)
from gateway.telemetry.log import log

_KINDS: dict[int, FaultKind] = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED}
_RETRY_S = "1"


def answer(request: Request, body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; `bytes` are sent as they are, under the content type in `headers`."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    fields = {"content-type": "application/json", **(headers or {})}
    fields["cache-control"] = "no-store"
    fields["x-request-id"] = request_id_of(request)
    return Response(content, status, fields)


def request_id_of(request: Request) -> str:
    """This request's id, made when first asked for."""
    known: str | None = getattr(request.state, "request_id", None)
    if known is None:
        known = request.state.request_id = secrets.token_hex(12)
    return known


def bearer(request: Request) -> bytes:
    """The bearer token, as bytes. Raises Fault(MISSING_KEY)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Fault(MISSING_KEY)
    return token.strip().encode("latin-1")


def parameters(request: Request, *known: str) -> dict[str, str]:
    """The query's parameters. Raises Fault(UNKNOWN_PARAMETER) for one that is none of `known`, or comes twice."""
    given = request.query_params.multi_items()
    for name, _ in given:
        if name not in known:
            takes = f"It takes {', '.join(known)}." if known else "It takes none."
            raise Fault(UNKNOWN_PARAMETER, public=f"Unknown parameter `{name[:64]}`. {takes}")
    if len(given) != len(dict(given)):
        raise Fault(UNKNOWN_PARAMETER, public="A parameter is given twice.")
    return dict(given)


def fault_answer(
    request: Request, fault: Fault, headers: Mapping[str, str] | None = None, *, more: Mapping[str, Any] | None = None
) -> Response:
    """The error body: `{"error": {"code", "message", "request_id"}}` and `more`, with public texts alone."""
    kind, fields = fault.kind, dict(headers or {})
    if kind.status == 401:
        fields["www-authenticate"] = "Bearer"
    if fault.retry_after_s is not None:
        fields["retry-after"] = str(fault.retry_after_s)
    if kind.status == 503:
        fields.setdefault("retry-after", _RETRY_S)
    if kind.status >= 500:
        log.warning("console_fault", request_id=request_id_of(request), fault=kind.code, detail=fault.internal)
    error = {"code": kind.code, "message": fault.public, "request_id": request_id_of(request)}
    return answer(request, {"error": error | dict(more or {})}, kind.status, fields)


async def on_fault(request: Request, error: Exception) -> Response:
    """Starlette's handler of a Fault."""
    return fault_answer(request, error if isinstance(error, Fault) else Fault(INTERNAL))


async def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's handler of its own errors: no such path, method not allowed (with `Allow`), a bad request."""
    status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (500, None)
    return fault_answer(request, Fault(_KINDS.get(status, INVALID_BODY if status < 500 else INTERNAL)), headers)


async def on_crash(request: Request, error: Exception) -> Response:
    """Starlette's handler of what nobody foresaw."""
    log.error("console_failed", request_id=request_id_of(request), path=request.url.path, exc_info=error)
    return fault_answer(request, Fault(INTERNAL))
