"""What has to hold between one setting and another. Looks past parts that are BROKEN: those are reported by now."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.domain.models import ModelRules
from gateway.settings.callers import issuer_problems
from gateway.settings.checks import did_you_mean
from gateway.settings.convert import BROKEN
from gateway.settings.model import Route, Settings
from gateway.settings.plans import TierSettings
from gateway.settings.upstreams import Upstream

Problem = tuple[str, str]
"""The dotted path of the setting to mend, and what is wrong with it."""


def problems(settings: Settings) -> Iterator[Problem]:
    """Every relation that does not hold."""
    yield from _models(settings)
    if _sound(settings.tiers, settings.default_tier) and settings.default_tier not in settings.tiers:
        yield "default_tier", "is not a tier of this file" + did_you_mean(settings.default_tier, settings.tiers)
    fallback = settings.subscriptions.fallback_tier if _sound(settings.subscriptions) else ""
    if fallback and _sound(settings.tiers, fallback) and fallback not in settings.tiers:
        yield "subscriptions.fallback_tier", "is not a tier of this file" + did_you_mean(fallback, settings.tiers)
    if _sound(settings.jwt):
        yield from issuer_problems(settings.jwt, settings.tiers)
    if _sound(settings.upstreams):
        for name, upstream in settings.upstreams.items():
            yield from _transport(f"upstreams.{name}", upstream)
            yield from _addresses(f"upstreams.{name}", upstream)
    if _sound(settings.routes):
        for index in range(len(settings.routes)):
            yield from _route(index, settings)


def _models(settings: Settings) -> Iterator[Problem]:
    """An alias has to lead to a model that may be asked for."""
    places: list[tuple[str, object]] = []
    if _sound(settings.tiers):
        places += ((f"tiers.{name}", tier) for name, tier in settings.tiers.items())
    if _sound(settings.routes):
        places += ((f"routes[{index}]", route) for index, route in enumerate(settings.routes))
    for path, holder in places:
        asked = holder.models if isinstance(holder, Route | TierSettings) else None
        if asked is None or not _sound(asked) or not _sound(asked.allow, asked.aliases, *asked.allow):
            continue
        rules = ModelRules(asked.allow)
        for alias, model in asked.aliases.items():
            if _sound(model) and not rules.allows(model):
                yield f"{path}.models.aliases.{alias}", "leads to a model that allow leaves out; add it there"


def _transport(path: str, upstream: Upstream) -> Iterator[Problem]:
    if not _sound(upstream) or upstream.transport != "lean":
        return
    if upstream.http2 is True:
        yield f"{path}.http2", "needs `transport: httpx` beside it; lean speaks HTTP/1.1"
    if upstream.proxy and _sound(upstream.proxy):
        yield f"{path}.proxy", "needs `transport: httpx` beside it; lean goes straight to the upstream"


def _addresses(path: str, upstream: Upstream) -> Iterator[Problem]:
    """One address or several, and keys that belong to one of them."""
    if not _sound(upstream) or not _sound(upstream.url, upstream.targets, upstream.api_keys):
        return
    if not upstream.url and not upstream.targets:
        yield path, 'needs "url", or "targets" with a url each'
    if upstream.url and upstream.targets:
        yield f"{path}.url", "stands beside targets; make it one of them"
    if upstream.api_keys and upstream.targets:
        yield f"{path}.api_keys", "stands beside targets; give each target its api_key"
    if upstream.without_key == "sandbox" and upstream.targets:
        yield f"{path}.without_key", "stands beside targets, which the built-in upstream can't be in place of"


def _fallbacks(index: int, settings: Settings) -> Iterator[Problem]:
    route, path = settings.routes[index], f"routes[{index}]"
    if not _sound(settings.upstreams, route.fallback):
        return
    for place, name in enumerate(route.fallback):
        if not _sound(name):
            continue
        if name not in settings.upstreams:
            yield f"{path}.fallback[{place}]", _NO_UPSTREAM + did_you_mean(name, settings.upstreams)
        elif name in (route.upstream, *route.fallback[:place]):
            yield f"{path}.fallback[{place}]", "is asked before already"
        else:
            yield from _other_shape(f"{path}.fallback[{place}]", name, route, settings)


def _other_shape(path: str, name: str, route: Route, settings: Settings) -> Iterator[Problem]:
    """An upstream that every metered route to it says to speak another API can't answer this route's requests."""
    if not _sound(route.dialect) or route.dialect == "plain":
        return
    others = [other for other in settings.routes if _sound(other) and _sound(other.upstream, other.dialect)]
    spoken = {_api(other.dialect) for other in others if other.upstream == name and other.dialect != "plain"}
    if spoken and _api(route.dialect) not in spoken:
        heard, wanted = " and ".join(sorted(spoken)), _api(route.dialect)
        text = f"speaks {heard} by its own routes, and this route speaks {wanted}: bodies are not translated"
        yield path, text + ". An upstream that speaks both is written twice, under two names"


def _api(dialect: str) -> str:
    """Whose API a dialect belongs to: all that begin with `openai` are one."""
    return dialect.partition("-")[0]


_NO_UPSTREAM = "is not an upstream of this file"


def _route(index: int, settings: Settings) -> Iterator[Problem]:
    route, path = settings.routes[index], f"routes[{index}]"
    if not _sound(route):
        return
    if _sound(settings.upstreams, route.upstream) and route.upstream not in settings.upstreams:
        yield f"{path}.upstream", _NO_UPSTREAM + did_you_mean(route.upstream, settings.upstreams)
    yield from _fallbacks(index, settings)
    yield from _gate(path, route, settings)
    if not _sound(route.path, route.methods):
        return
    base = _base_path(route, settings)
    if base and f"{route.path}/".startswith(f"{base}/"):
        yield f"{path}.path", f"begins with {base}, with which upstreams.{route.upstream}.url ends: leave it out there"
    if _sound(settings.listen) and f"{route.path}/".startswith(f"{settings.listen.prefix}/"):
        yield f"{path}.path", "is never reached: listen.prefix keeps it for Tollway itself"
    earlier = next((one for one in range(index) if _covers(settings.routes[one], route)), None)
    if earlier is not None:
        yield f"{path}.path", f"is never reached: routes[{earlier}] matches all of it first; put this one before it"


def _gate(path: str, route: Route, settings: Settings) -> Iterator[Problem]:
    """What a route asks of tiers, some tier has to have."""
    if not _sound(settings.tiers) or not _sound(*settings.tiers.values()):
        return
    for index, name in enumerate(route.tiers if _sound(route.tiers) else ()):
        if _sound(name) and name not in settings.tiers:
            yield f"{path}.tiers[{index}]", "is not a tier of this file" + did_you_mean(name, settings.tiers)
    tiers = settings.tiers.values()
    if route.needs and _sound(route.needs, *(tier.features for tier in tiers)):
        features = {name for tier in tiers for name in tier.features}
        if route.needs not in features:
            yield f"{path}.needs", "is no feature of any tier" + did_you_mean(route.needs, sorted(features))
    if route.schedule and _sound(route.schedule, *(tier.schedules for tier in tiers)):
        schedules = {name for tier in tiers for name in tier.schedules}
        if route.schedule not in schedules:
            yield f"{path}.schedule", "is no schedule of any tier" + did_you_mean(route.schedule, sorted(schedules))


def _base_path(route: Route, settings: Settings) -> str:
    """The path with which the URL of the route's upstream ends; empty where it has none, or can't be told."""
    if not _sound(settings.upstreams, route.upstream):
        return ""
    upstream = settings.upstreams.get(route.upstream)
    if upstream is None or not _sound(upstream) or not _sound(upstream.url, upstream.targets, *upstream.targets):
        return ""
    address = upstream.addresses[0]
    return urlsplit(address).path.rstrip("/") if _sound(address) else ""


def _covers(before: Route, route: Route) -> bool:
    if not _sound(before) or not _sound(before.path, before.methods):
        return False
    if before.methods and not (route.methods and set(route.methods) <= set(before.methods)):
        return False
    if before.path.endswith("/*"):
        return route.path.startswith(before.path[:-1])
    return route.path == before.path


def _sound(*values: object) -> bool:
    return all(value is not BROKEN for value in values)
