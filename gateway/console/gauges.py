"""Levels that an account's apps report: `GET`, `PUT` and `POST {prefix}/gauges/<name>`, with the account's own key.

`PUT` sets a level, `POST` changes it, and what would pass the limit is refused with 409. `GET` with `add=1` tells
whether one more would fit, and so does nothing by itself: the change that is asked for after it decides.
"""

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.console.gauge_body import gauge_body
from gateway.console.moments import moment
from gateway.console.replies import answer, fault_answer, parameters
from gateway.console.services import Services
from gateway.console.usage import UsagePages
from gateway.domain.accounts import Caller
from gateway.domain.faults import INVALID_BODY, NOT_FOUND, OVER_LIMIT, UNKNOWN_PARAMETER, Fault
from gateway.domain.gauges import NAME, Change, Gauge, as_number, in_milli, level, limit_milli
from gateway.domain.metered import OWN_ID

_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,3})?\Z", re.ASCII)
_NAMES = re.compile(NAME)
_LIMIT = 100


class SetBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a `PUT`."""

    value: float
    request_id: Annotated[str, Meta(pattern=OWN_ID)] = ""


class ChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a `POST`."""

    delta: float
    request_id: Annotated[str, Meta(pattern=OWN_ID)] = ""


class GaugePages:
    """The endpoints under `{prefix}/gauges`; `usage` knows who asks and what they may have."""

    def __init__(self, services: Services, usage: UsagePages) -> None:
        self._services = services
        self._usage = usage

    async def one(self, request: Request) -> Response:
        """`GET gauges/<name>`; with `add`, also whether so much more would fit."""
        asked = parameters(request, "add")
        more = _more(asked["add"]) if "add" in asked else None
        caller, numbers = await self._standing(request)
        name = _name(request)
        known = {one.name: one for one in await self._services.ledger.gauges_of(caller.account_id)}
        gauge = known.get(name, Gauge(name, 0))
        body = gauge_body(gauge, numbers)
        if more is not None:
            change = Change(caller.account_id, name, None, more, "", caller.key_id, 0)
            body["fits"] = level(gauge.value_milli, change, limit_milli(name, numbers)).fits
        return answer(request, body)

    async def change(self, request: Request) -> Response:
        """`PUT gauges/<name>` sets the level, `POST` changes it."""
        parameters(request)
        caller, numbers = await self._standing(request)
        name, sets = _name(request), request.method == "PUT"
        said: SetBody | ChangeBody = _read(await request.body(), SetBody if sets else ChangeBody)
        milli = _milli(said.value if isinstance(said, SetBody) else said.delta)
        value, delta = (milli, 0) if sets else (None, milli)
        now_ms, limit = self._services.now_ms(), limit_milli(name, numbers)
        change = Change(caller.account_id, name, value, delta, said.request_id, caller.key_id, now_ms)
        found = await self._services.ledger.change_gauge(change, limit)
        if found.fits:
            return answer(request, gauge_body(Gauge(name, found.asked_milli), numbers))
        if found.asked_milli < 0 or limit is None:
            raise Fault(INVALID_BODY, public=f"The level of `{name}` can't become {as_number(found.asked_milli)}.")
        told = {"used": as_number(found.used_milli), "asked": as_number(found.asked_milli)}
        text = f"The limit of `{name}` is {as_number(limit)}: {told['used']} are used, {told['asked']} asked for."
        return fault_answer(request, Fault(OVER_LIMIT, public=text), more=told | {"limit": as_number(limit)})

    async def history(self, request: Request) -> Response:
        """`GET gauges/<name>/history`: the latest changes, newest first."""
        parameters(request)
        caller, _ = await self._usage.caller(request)
        rows = await self._services.ledger.gauge_history(caller.account_id, _name(request), _LIMIT)
        changes = [
            {
                "at": moment(row.at_ms, "milliseconds"),
                "key": row.who,
                "request_id": row.request_id or None,
                "delta": as_number(row.delta_milli),
                "value": as_number(row.value_milli),
            }
            for row in rows
        ]
        return answer(request, {"name": _name(request), "changes": changes})

    async def _standing(self, request: Request) -> tuple[Caller, dict[str, float]]:
        caller, _ = await self._usage.caller(request)
        standing = await self._services.ledger.standing(caller.account_id)
        _, tier = self._usage.entitled(standing, self._services.now_ms() // 1000)
        return caller, dict(tier.numbers)


def gauge_routes(services: Services, usage: UsagePages) -> list[Route]:
    """The routes under `{prefix}/gauges`."""
    pages, path = GaugePages(services, usage), f"{services.prefix}/gauges/{{name}}"
    return [
        Route(path, pages.one, methods=["GET"]),
        Route(path, pages.change, methods=["PUT", "POST"]),
        Route(f"{path}/history", pages.history, methods=["GET"]),
    ]


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    if not _NAMES.match(name):
        raise Fault(NOT_FOUND, public="A gauge's name is up to 64 small letters, digits and `_`, a letter first.")
    return name


def _read(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        text = f"{error}".replace("`$.", "`")
        raise Fault(INVALID_BODY, text, public=f"The request body is not what this takes: {text}.") from None


def _milli(number: float) -> int:
    milli = in_milli(number)
    if milli is None:
        raise Fault(INVALID_BODY, public="A level is a number of at most three decimals, up to 9,007,199,254,740.")
    return milli


def _more(text: str) -> int:
    milli = in_milli(float(text)) if _NUMBER.match(text) else None
    if milli is None:
        raise Fault(UNKNOWN_PARAMETER, public="`add` is a number of at most three decimals.")
    return milli
