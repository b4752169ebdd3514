"""The upstreams that are open, and the routes to them: made at the start, and anew where the settings change.

An upstream whose settings are as before stays as it is, with its connections and what is known of its health. One that
is no more is asked after no longer, and closed after the last request that may use it.
"""

import asyncio
from collections.abc import Callable, Iterator

from gateway.dialects.registry import DIALECTS
from gateway.edge.departure import Departures
from gateway.edge.retiring import Retiring
from gateway.settings import upstreams as asked
from gateway.settings.model import Route as RouteSettings
from gateway.settings.model import Settings
from gateway.settings.tiers import app_ids_of, gate_of, models_of, rules_of, tiers_of
from gateway.snapshot import Route, Snapshot
from gateway.upstream.choice import Choice, Member, Upstream
from gateway.upstream.health_check import run_checks
from gateway.upstream.opening import open_upstream, retry_of
from gateway.upstream.transport import Transport


class Routing:
    """Of one process. `count_attempt` is told each request to one of several targets, and how it ended."""

    def __init__(
        self, departures: Departures, sandbox_url: str, count_attempt: Callable[[str, str, str], None]
    ) -> None:
        self._retiring = Retiring(departures)
        self._sandbox_url = sandbox_url
        self._count_attempt = count_attempt
        self._asked: dict[str, asked.Upstream] = {}
        self._upstreams: dict[str, Upstream] = {}
        self._checks: dict[str, asyncio.Task[None]] = {}

    def change(self, settings: Settings) -> Snapshot:
        """Open what these settings name; their routes. Raises ValueError or OSError, and nothing has changed then."""
        before, upstreams = self._upstreams, {}
        for name, wanted in settings.upstreams.items():
            same = self._asked.get(name) == wanted
            upstreams[name] = before[name] if same else open_upstream(name, wanted, self._sandbox_url)
        snapshot = self._snapshot(settings, upstreams)
        self._upstreams, self._asked = upstreams, dict(settings.upstreams)
        self._leave({name: old for name, old in before.items() if upstreams.get(name) is not old})
        for name, wanted in settings.upstreams.items():
            if wanted.health is not None and name not in self._checks:
                self._checks[name] = asyncio.create_task(run_checks(upstreams[name], wanted.health))
        return snapshot

    def connections(self) -> tuple[int, int]:
        """Of the upstreams of now: connections open, and of these idle."""
        counts = [transport.connections() for transport in _transports(self._upstreams)]
        return sum(opened for opened, _ in counts), sum(idle for _, idle in counts)

    def unfit(self) -> int:
        """How many targets are left alone."""
        return sum(not member.health.is_fit for member in _members(self._upstreams))

    async def close(self) -> None:
        """Close all."""
        for check in self._checks.values():
            check.cancel()
        await self._retiring.close()
        for transport in _transports(self._upstreams):
            await transport.aclose()

    def _leave(self, left: dict[str, Upstream]) -> None:
        for name in left:
            check = self._checks.pop(name, None)
            if check is not None:
                check.cancel()
        if left:
            self._retiring.retire(_transports(left))

    def _snapshot(self, settings: Settings, upstreams: dict[str, Upstream]) -> Snapshot:
        tiers = tiers_of(settings)
        return Snapshot(
            tuple(
                Route(
                    endpoint=route.endpoint or route.path,
                    gate=gate_of(route, tiers),
                    passes_preflight=route.preflight == "pass",
                    path=route.path,
                    methods=frozenset(route.methods),
                    target=upstreams[route.upstream].members[0].target,
                    dialect=DIALECTS[route.dialect],
                    reads_body=route.dialect != "plain",
                    default_max_tokens=route.default_max_tokens,
                    choice=self._choice(route, settings, upstreams),
                    models=models_of(route.models),
                )
                for route in settings.routes
            ),
            tiers,
            rules_of(settings),
            app_ids_of(settings.metering.app_ids),
        )

    def _choice(self, route: RouteSettings, settings: Settings, upstreams: dict[str, Upstream]) -> Choice | None:
        """None where all goes to one target that nothing watches."""
        names = (route.upstream, *route.fallback)
        wanted = [settings.upstreams[name] for name in names]
        chosen = tuple(upstreams[name] for name in names)
        if sum(len(one.members) for one in chosen) == 1 and wanted[0].health is None and not wanted[0].models:
            return None
        return Choice(chosen, retry_of(wanted[0]), self._count_attempt)


def _members(upstreams: dict[str, Upstream]) -> Iterator[Member]:
    return (member for upstream in upstreams.values() for member in upstream.members)


def _transports(upstreams: dict[str, Upstream]) -> list[Transport]:
    return list(dict.fromkeys(member.target.transport for member in _members(upstreams)))
