"""What operators and their machines ask: is it alive, is it ready, and the metrics.

Health is open to all and tells no internals. Metrics are told to this machine (a direct loopback connection that no
proxy forwarded), and to whoever brings the admin token.
"""

import asyncio
import hmac
from ipaddress import IPv6Address, ip_address
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.console.replies import answer, parameters
from gateway.console.services import Services
from gateway.domain.faults import ADMIN_ONLY, Fault
from gateway.telemetry.log import log

_PROBE_S = 1.0
_TEXT = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


class OperationsPages:
    """The endpoints `{prefix}/health/live`, `{prefix}/health/ready` and `{prefix}/metrics`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def live(self, request: Request) -> Response:
        """200 while this process serves, 503 once it is stopping."""
        parameters(request)
        stopping = self._services.stopping()
        return answer(request, {"live": not stopping}, 503 if stopping else 200)

    async def ready(self, request: Request) -> Response:
        """200 when every probe answers within a second, else 503; the body names each probe and its state."""
        parameters(request)
        probes = self._services.probes
        results = await asyncio.gather(
            *(asyncio.wait_for(probe(), _PROBE_S) for probe in probes.values()), return_exceptions=True
        )
        states = {name: _state(name, result) for name, result in zip(probes, results, strict=True)}
        ready = not self._services.stopping() and all(state["ok"] for state in states.values())
        return answer(request, {"ready": ready, "probes": states}, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """All workers' metrics as Prometheus text."""
        parameters(request)
        if not (_from_this_machine(request) or self._has_admin_token(request)):
            hint = "Metrics are for this machine alone, and for who sends the admin token as a bearer token."
            raise Fault(ADMIN_ONLY, public=hint)
        return answer(request, self._services.metrics(), headers=_TEXT)

    def _has_admin_token(self, request: Request) -> bool:
        token = self._services.admin_token
        given = request.headers.get("authorization", "").encode("latin-1")
        return bool(token) and hmac.compare_digest(given, f"Bearer {token}".encode())


def _state(name: str, result: object) -> dict[str, Any]:
    """What a probe's result says, and no more: its text may hold addresses."""
    if not isinstance(result, BaseException):
        return {"ok": True}
    log.warning("probe_failed", probe=name, detail=repr(result))
    if isinstance(result, TimeoutError):
        return {"ok": False, "code": "timeout"}
    return {"ok": False, "code": result.kind.code if isinstance(result, Fault) else "failed"}


def _from_this_machine(request: Request) -> bool:
    """Whether the client itself sits on loopback; a proxy on this machine speaks for others, and says so."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        address = ip_address(request.client.host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback
