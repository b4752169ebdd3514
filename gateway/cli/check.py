"""Check a settings file and report every mistake in it, with its line; or what would change with it, and when."""

import argparse
import os
import sys
from pathlib import Path

from gateway.domain.limits import Tier
from gateway.settings.changes import Reach, changes
from gateway.settings.load import SettingsError, load
from gateway.settings.model import Route, Settings
from gateway.settings.tiers import tier_of

_MISTAKEN = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file to check."""
    parser.add_argument("file", nargs="?", default="gateway.yaml", type=Path, help="default: gateway.yaml")
    parser.add_argument("--diff", metavar="OLD", type=Path, help="show what differs from this file, and when it counts")


def run(args: argparse.Namespace) -> int:
    """Print what the file says in short and return 0, or all its mistakes on standard error and return 2."""
    files = [args.file, args.diff] if args.diff else [args.file]
    readings = [_read(file) for file in files]
    sound = [one for one in readings if isinstance(one, Settings)]
    if len(sound) < len(files):
        mistakes = [one for one in readings if isinstance(one, SettingsError)]
        count = sum(len(one.mistakes) for one in mistakes)
        compared = "; the difference is told once there are none" if args.diff else ""
        print(*mistakes, f"{count} mistake{'s' if count > 1 else ''}{compared}", sep="\n", file=sys.stderr)
        return _MISTAKEN
    settings, *old = sound
    print(f"{args.file}: fine\n{difference(old[0], settings) if old else summary(settings)}")
    return 0


def _read(file: Path) -> Settings | SettingsError:
    try:
        return load(file, os.environ)
    except SettingsError as error:
        return error


def difference(old: Settings, new: Settings) -> str:
    """Each change on a line, by when it counts. Tells no secret."""
    found = changes(old, new)
    if not found:
        return "nothing differs"
    lines = []
    for reach in Reach:
        reached = [f"  {change}" for change in found if change.reach is reach]
        lines += [f"{reach}:", *reached] if reached else []
    return "\n".join(lines)


def summary(settings: Settings) -> str:
    """Upstreams, routes and tiers, a line each. Tells no secret."""
    upstreams = [
        f"  {name}: {'built-in sandbox' if upstream.uses_sandbox else ', '.join(upstream.addresses)}"
        for name, upstream in settings.upstreams.items()
    ]
    routes = [_route(route) for route in settings.routes]
    tiers = [
        _tier(tier_of(name, tier), is_default=name == settings.default_tier) for name, tier in settings.tiers.items()
    ]
    return "\n".join(["upstreams", *upstreams, "routes", *routes, "tiers", *tiers])


def _route(route: Route) -> str:
    methods = f"{','.join(route.methods)} " if route.methods else ""
    return f"  {methods}{route.path} -> {', '.join((route.upstream, *route.fallback))} ({route.dialect})"


def _tier(tier: Tier, *, is_default: bool) -> str:
    limits = [f"{limit.maximum:,} {limit.name} ({limit.remedy})" for limit in tier.limits]
    if tier.concurrency is not None:
        limits.append(f"{tier.concurrency:,} at once")
    zone = "" if tier.time_zone.key == "UTC" else f", windows in {tier.time_zone.key}"
    return f"  {tier.name}{' (default)' if is_default else ''}: {', '.join(limits) or 'no limits'}{zone}"
