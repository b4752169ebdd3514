"""Settings compiled for speed: what a request looks up, looked up once. Immutable, and swapped whole.

Promises: matching a path that stands in a route as it is costs one dictionary look-up; the windows of a tier are worked
out once per window, not per request.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import itemgetter
from urllib.parse import unquote_to_bytes

import msgspec

from gateway.dialects.dialect import Dialect, LimitFields
from gateway.domain.accounts import ApiKey
from gateway.domain.app_ids import AppIds
from gateway.domain.decisions import Line
from gateway.domain.entitlements import Entitled, Entitlements, Standing, entitlements
from gateway.domain.faults import INVALID_PATH, METHOD_NOT_ALLOWED, UNKNOWN_ROUTE, Fault
from gateway.domain.gates import Gate
from gateway.domain.key_terms import bound_by
from gateway.domain.limits import Tier, Unit, Window
from gateway.domain.models import ANY_MODEL, UNCAPPED, ModelRules
from gateway.domain.subscriptions import DEFAULT_RULES, Rules
from gateway.domain.usage import UNITS, Usage, amounts
from gateway.domain.windows import FOREVER_S, span
from gateway.upstream.choice import Choice
from gateway.upstream.target import Target

REMEMBERED_PATHS = 4096


@dataclass(frozen=True, slots=True)
class Route:
    """What matches a request and where it goes. `methods` empty takes any.

    `endpoint` is what usage is recorded under. `passes_preflight` sends CORS preflights on for callers without a key.
    `choice` is None where there is none: all goes to `target`, else the first one.
    """

    path: str
    methods: frozenset[str]
    target: Target
    dialect: Dialect
    reads_body: bool
    default_max_tokens: int
    endpoint: str = ""
    gate: Gate | None = None
    passes_preflight: bool = False
    choice: Choice | None = None
    models: ModelRules = ANY_MODEL


class Frame:
    """A tier's windows as they run from `start_s` until `end_s`; `lines` ask for nothing yet.

    Renders them for headers. Only the counts differ from caller to caller, so all else is rendered once a second.
    """

    def __init__(self, tier: Tier, now_s: int) -> None:
        lines: list[Line] = []
        self.start_s = now_s - now_s % 3600
        self.end_s = self.start_s + 3600
        for limit in tier.limits:
            counter, first_s, after_s = span(tier, limit, now_s)
            lines.append(Line(counter, first_s, after_s, limit.maximum, 0, limit.remedy))
            self.start_s, self.end_s = max(self.start_s, first_s), min(self.end_s, after_s)
        self._named = tuple((limit.name, line) for limit, line in zip(tier.limits, lines, strict=True))
        if tier.slots is not None:
            name, maximum = tier.slots
            lines.append(Line(name, 0, FOREVER_S, maximum, 0))
            self._named += ((name, lines[-1]),)
        self.lines = tuple(lines)
        self._maxima = tuple(line.maximum for line in lines)
        policy = ", ".join(f'"{name}";q={line.maximum};w={line.end_s - line.start_s}' for name, line in self._named)
        self._policy = (b"ratelimit-policy", policy.encode())
        self._places = [[place for place, limit in enumerate(tier.limits) if limit.unit is unit] for unit in _TOLD]
        self._rendered_s = -1
        self._state = b""
        self._told: list[list[_Told]] = []

    def headers(self, used: tuple[int, ...], now_s: int, names: LimitFields) -> list[tuple[bytes, bytes]]:
        """The caller's limits: `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers, list form),
        and for the tightest limit of a unit the fields that the dialect's clients know.
        """  # noqa: D205
        if not used:
            return []
        if now_s != self._rendered_s:
            self._render(now_s)
        left = [maximum - count if maximum > count else 0 for maximum, count in zip(self._maxima, used, strict=True)]
        headers = [self._policy, (b"ratelimit", self._state % tuple(left))]
        for told in self._told[names]:
            places = told.places
            place = places[0] if len(places) == 1 else min(places, key=left.__getitem__)
            maximum, reset = told.fields[place]
            headers += (maximum, (told.remaining, b"%d" % left[place]), reset)
        return headers

    def _render(self, now_s: int) -> None:
        self._rendered_s = now_s
        self._state = ", ".join(f'"{name}";r=%d;t={line.end_s - now_s}' for name, line in self._named).encode()
        requests, tokens, inputs, outputs = self._places
        openai = [self._tell(requests, _X % "-requests", "s"), self._tell(tokens, _X % "-tokens", "s")]
        bare = [*openai, self._tell(requests, _X % "", "")]
        units = ((requests, "requests"), (tokens, "tokens"), (inputs, "input-tokens"), (outputs, "output-tokens"))
        anthropic = [self._tell(places, f"anthropic-ratelimit-{name}-%s", None) for places, name in units]
        # In the order of `LimitFields`.
        self._told = [[item for item in told if item.places] for told in (openai, bare, anthropic)]

    def _tell(self, places: list[int], name: str, seconds: str | None) -> "_Told":
        """The limits at `places`; their resets as seconds with that unit behind, or as a time of RFC 3339."""
        limit, remaining, reset = [(name % part).encode() for part in ("limit", "remaining", "reset")]
        fields = {}
        for place in places:
            line = self.lines[place]
            when = _time(line.end_s) if seconds is None else f"{line.end_s - self._rendered_s}{seconds}"
            fields[place] = ((limit, b"%d" % line.maximum), (reset, when.encode()))
        return _Told(places, remaining, fields)


class _Told(msgspec.Struct, frozen=True):
    """The limits of one unit, by place: the fields around the remaining count."""

    places: list[int]
    remaining: bytes
    fields: dict[int, tuple[tuple[bytes, bytes], tuple[bytes, bytes]]]


_TOLD = (Unit.REQUESTS, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS)
_X = "x-ratelimit-%%s%s"


def _time(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Plan:
    """A tier compiled: its limits' units, and the frame that runs now."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.units: tuple[Unit, ...] = tuple(limit.unit for limit in tier.limits)
        self.counts_tokens = any(unit is not Unit.REQUESTS for unit in self.units)
        self.concurrency = -1 if tier.concurrency is None else tier.concurrency
        self.bandwidth_byte_s = tier.bandwidth_bit_s / 8
        self._frame = Frame(tier, 0)
        places = [UNITS.index(unit) for unit in self.units]
        pick = _picking(places)
        # A slot is held as long as the request runs: one for one request, and then nothing of it is charged.
        self._pick = pick if tier.slots is None else _picking([*places, UNITS.index(Unit.REQUESTS)])
        self._pick_charged = pick if tier.slots is None else lambda row: (*pick(row), 0)

    def amounts(self, requests: int, usage: Usage) -> tuple[int, ...]:
        """What a request that runs holds of each line of the frame, should it use this."""
        return self._pick(amounts(requests, usage))

    def charged(self, requests: int, usage: Usage) -> tuple[int, ...]:
        """What a request that has ended and used this counts against each line of the frame."""
        return self._pick_charged(amounts(requests, usage))

    def frame(self, now_s: int) -> Frame:
        """The windows that hold `now_s` (Unix seconds, the limiter's clock)."""
        frame = self._frame
        if not frame.start_s <= now_s < frame.end_s:
            frame = self._frame = Frame(self.tier, now_s)
        return frame


def _picking(places: Sequence[int]) -> Callable[[tuple[int, ...]], tuple[int, ...]]:
    """What picks these places of a tuple: `itemgetter` is quick, but gives no tuple for fewer than two."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda row: tuple([row[place] for place in places])


class Snapshot:
    """Routes and tiers of one reading of gateway.yaml. `app_ids` is None where events hold no ids of the app's own."""

    def __init__(
        self,
        routes: tuple[Route, ...],
        tiers: Mapping[str, Tier],
        rules: Rules = DEFAULT_RULES,
        app_ids: AppIds | None = None,
    ) -> None:
        self.app_ids = app_ids
        self.plans = {name: Plan(tier) for name, tier in tiers.items()}
        self.tiers = tiers
        self.has_rules = any(route.models != ANY_MODEL for route in routes) or any(
            tier.models != ANY_MODEL or tier.caps != UNCAPPED for tier in tiers.values()
        )
        self._rules = rules
        self._exact: dict[bytes, Route] = {}
        self._known: dict[tuple[str, bytes], tuple[Route, bytes]] = {}
        self._routes = routes
        self._loose = tuple((loosened(route.path.rstrip("*").encode()), route) for route in routes)
        for route in routes:
            path = route.path.encode()
            if not route.path.endswith("*") and path not in self._exact and self._first(path) is route:
                self._exact[path] = route

    def entitlements(self, standing: Standing, now_s: int) -> Entitlements:
        """What an account may do at a Unix second."""
        return entitlements(standing, now_s, self.tiers, self._rules)

    def entitle(self, standing: Standing, now_s: int, key: ApiKey) -> Entitled:
        """The same as requests by a key need it: a plan only for who has more or less than the tier."""
        found = self.entitlements(standing, now_s)
        if key.terms.is_limited:
            return _entitled_key(found, key)
        plan = None if found.is_plain or found.tier is None else Plan(found.tier)
        return Entitled(found.effective.tier, plan, found.until_s)

    def route(self, method: str, raw_path: bytes) -> tuple[Route, bytes]:
        """The route of a request and the path to forward: dot segments resolved, else as it came.

        Raises Fault: INVALID_PATH, UNKNOWN_ROUTE, METHOD_NOT_ALLOWED.
        """
        route = self._exact.get(raw_path)
        if route is not None and (not route.methods or method in route.methods):
            return route, raw_path
        found = self._known.get((method, raw_path))
        if found is not None:
            return found
        path = normal_path(raw_path)
        route = self._first(path, method)
        if route is not None:
            self._refuse_other_spelling(path, method, route)
            if len(self._known) >= REMEMBERED_PATHS:
                self._known.clear()
            self._known[method, raw_path] = route, path
            return route, path
        other = self._first(path)
        if other is None:
            raise Fault(UNKNOWN_ROUTE, f"no route for {path.decode('latin-1')}")
        allowed = ", ".join(sorted(other.methods))
        raise Fault(METHOD_NOT_ALLOWED, public=f"The route {other.path} takes {allowed} alone.")

    def _refuse_other_spelling(self, path: bytes, method: str, route: Route) -> None:
        """Refuse a path that is an unmetered route's to us, but that a lenient upstream would take for a metered one:
        `/v1/chat/completion%73`, `/V1/chat//completions/`. Raises Fault(INVALID_PATH).
        """  # noqa: D205
        if route.reads_body:
            return
        loose = loosened(path)
        for pattern, other in self._loose:
            if other is route:
                return
            if other.methods and method not in other.methods:
                continue
            if loose == pattern or (other.path.endswith("*") and loose.startswith(pattern + b"/")):
                if other.reads_body:
                    raise Fault(INVALID_PATH, f"{path!r} is another spelling of {other.path}", public=_SPELLING)
                return

    def _first(self, path: bytes, method: str = "") -> Route | None:
        """The first route that matches `path`, and `method` unless it is empty."""
        for route in self._routes:
            if method and route.methods and method not in route.methods:
                continue
            pattern = route.path.encode()
            if path.startswith(pattern[:-1]) if pattern.endswith(b"*") else path == pattern:
                return route
        return None


def _entitled_key(found: Entitlements, key: ApiKey) -> Entitled:
    """For a key with limits of its own."""
    if found.tier is None:
        return Entitled(found.effective.tier, None, found.until_s)
    tier, subscription = bound_by(found.tier, key.terms, key.counter), found.effective.subscription
    if subscription is not None and any(limit.window is Window.PERIOD for limit in tier.limits):
        tier = replace(tier, period=subscription.period)
    return Entitled(found.effective.tier, Plan(tier), found.until_s)


_SPELLING = "The path is another spelling of one that this gateway meters. Write it plainly: no escapes, no capitals."


def loosened(path: bytes) -> bytes:
    """What a path may come to at an upstream that is lenient in every way: escapes undone (twice), backslashes for
    slashes, parameters and outer blanks cut, slashes joined, dots resolved, capitals lowered. For comparing, never for
    forwarding.
    """  # noqa: D205
    plain = unquote_to_bytes(unquote_to_bytes(path)).replace(b"\\", b"/").lower()
    kept: list[bytes] = []
    for segment in plain.split(b"/"):
        name = segment.partition(b";")[0].strip()
        if name == b"..":
            del kept[-1:]
        elif name not in {b"", b"."}:
            kept.append(name)
    return b"/" + b"/".join(kept)


def normal_path(raw_path: bytes) -> bytes:
    """A path with its dot segments resolved (RFC 3986 §5.2.4), encoded ones too; all else stays as it came.

    Raises Fault(INVALID_PATH) where a decoded segment would still hold `..` between slashes, or a control character:
    what an upstream that decodes twice might take for another path.
    """
    if not raw_path.startswith(b"/"):
        raise Fault(INVALID_PATH, public="The request target has to be a path.")
    kept: list[bytes] = []
    segments = raw_path[1:].split(b"/")
    for place, segment in enumerate(segments):
        plain = unquote_to_bytes(segment) if b"%" in segment else segment
        if plain in {b".", b".."}:
            if plain == b".." and kept:
                kept.pop()
            if place == len(segments) - 1:
                kept.append(b"")
            continue
        if min(plain, default=32) < 32 or b".." in plain.replace(b"\\", b"/").split(b"/"):
            raise Fault(INVALID_PATH, f"refused {raw_path!r}")
        kept.append(segment)
    return b"/" + b"/".join(kept)
