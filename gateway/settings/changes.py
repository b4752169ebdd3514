"""What differs between two readings of gateway.yaml, key by key, and how much of a running gateway each key reaches.

No text of it tells a secret: of a key that may hold one it says that it changed.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from gateway.settings.callers import Jwt
from gateway.settings.model import Route, Settings
from gateway.settings.plans import TierSettings
from gateway.settings.upstreams import Upstream

_SECRETS = frozenset({"api_key", "api_keys", "secret", "webhook_secrets", "proxy"})
_SECRET_URLS = frozenset({"redis.url", "database.url"})
LIVE = frozenset({"upstreams", "routes", "tiers", "subscriptions", "reload"})
"""Sections that a running worker takes."""

AT_START = frozenset(
    {"listen", "redis", "journal", "database", "jwt", "guesses", "log", "metering", "default_tier", "stripe"}
)
"""Sections that a worker reads at its start; what is in neither, or in FIXED, is read once, before any worker."""

FIXED = (
    "listen.host",
    "listen.port",
    "listen.workers",
    "listen.shutdown_grace_s",
    "redis.url",
    "redis.namespace",
    "redis.partitions",
    "database.url",
    "log.format",
    "log.level",
)
_ENTRIES: Mapping[str, msgspec.Struct] = {
    "upstreams": Upstream(url=""),
    "tiers": TierSettings(),
    "routes": Route(path="", upstream="", dialect="plain"),
    "jwt": Jwt(issuer="", audience=""),
}
"""Sections of named entries; what an entry says beyond these is told where it comes or goes as a whole."""


class Reach(StrEnum):
    """When a change counts."""

    LIVE = "at a reload"
    WORKERS = "once the workers are restarted (SIGUSR2)"
    RESTART = "needs a restart"


class Change(msgspec.Struct, frozen=True):
    """One key, with what it held and holds as text; empty is nothing."""

    path: str
    before: str
    after: str

    @property
    def reach(self) -> Reach:
        """When it counts."""
        section = self.path.partition(".")[0]
        if section in LIVE:
            return Reach.LIVE
        return Reach.WORKERS if section in AT_START and self.path not in FIXED else Reach.RESTART

    def __str__(self) -> str:
        """`~ tiers.free.concurrency: 5 -> 6`, `+ tiers.gold: …`, `- tiers.old: …`."""
        if not self.before:
            return f"+ {self.path}: {self.after}"
        if not self.after:
            return f"- {self.path}: {self.before}"
        return f"~ {self.path}: {self.before} -> {self.after}"


def changes(old: Settings, new: Settings) -> tuple[Change, ...]:
    """Every difference, in the order of the keys."""
    before, after = _tree(old), _tree(new)
    found = [change for key in before | after for change in _section(key, before.get(key), after.get(key))]
    paths = [[(route.methods, route.path) for route in settings.routes] for settings in (old, new)]
    if sorted(paths[0]) == sorted(paths[1]) and paths[0] != paths[1]:
        found.append(Change("routes", "their order", "another"))
    return tuple(found)


def touched_tiers(found: tuple[Change, ...]) -> tuple[str, ...]:
    """Names of the tiers that came, went or changed."""
    return tuple(sorted({change.path.split(".")[1] for change in found if change.path.startswith("tiers.")}))


def _tree(settings: Settings) -> dict[str, Any]:
    tree: dict[str, Any] = msgspec.to_builtins(settings)
    tree["routes"] = {_route_name(route): route for route in reversed(tree["routes"])}
    tree["jwt"] = {one["issuer"]: one for one in tree["jwt"]}
    return tree


def _route_name(route: dict[str, Any]) -> str:
    return " ".join(filter(None, [",".join(route["methods"]), route["path"]]))


def _section(key: str, before: Any, after: Any) -> Iterator[Change]:
    if key not in _ENTRIES:
        yield from _leaves_apart(key, before, after)
        return
    for name in before | after:
        path = f"{key}.{name}"
        if name in before and name in after:
            yield from _leaves_apart(path, before[name], after[name])
        else:
            yield Change(path, _entry(key, before.get(name)), _entry(key, after.get(name)))


def _leaves_apart(path: str, before: Any, after: Any) -> Iterator[Change]:
    old, new = dict(_leaves(path, before)), dict(_leaves(path, after))
    for leaf in old | new:
        if old.get(leaf) != new.get(leaf):
            yield Change(leaf, _text(leaf, old.get(leaf)), _text(leaf, new.get(leaf)))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}" if path else key, inner)
    elif isinstance(value, list | tuple) and any(isinstance(inner, dict) for inner in value):
        for place, inner in enumerate(value):
            yield from _leaves(f"{path}[{place}]", inner)
    elif value is not None and value not in ([], ()):
        yield path, value


def _entry(key: str, entry: Any) -> str:
    if entry is None:
        return ""
    usual = dict(_leaves("", msgspec.to_builtins(_ENTRIES[key])))
    said = [f"{leaf} {_text(leaf, value)}" for leaf, value in _leaves("", entry) if usual.get(leaf) != value]
    return ", ".join(said) or "with nothing set"


def _text(path: str, value: Any) -> str:
    if value is None:
        return ""
    if path in _SECRET_URLS or path.rpartition(".")[2] in _SECRETS:
        return "(a secret)" if value else '""'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != "" else '""'
