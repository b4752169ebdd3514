"""Which target takes a request: of an upstream's fit ones the least loaded for its weight; of a route's upstreams the
first that has one.

Promises: a target that is open or rests is never picked, nor one that the request was sent to before; each worker
counts for itself. Only for routes with more than one target, or whose one is watched.
"""  # noqa: D205

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from gateway.domain.faults import UPSTREAM_DOWN, UPSTREAM_RATE_LIMITED, Fault
from gateway.upstream.health import Health
from gateway.upstream.target import Target


@dataclass(slots=True, eq=False)
class Member:
    """A target among others. `label` names it in logs and metrics; `running` counts its requests of this worker."""

    target: Target
    label: str
    weight: int
    health: Health
    running: int = 0
    credit: int = 0

    @property
    def load(self) -> float:
        """Requests under way for its weight."""
        return self.running / self.weight


@dataclass(frozen=True, slots=True)
class Upstream:
    """One or more targets under one name. `models` are names that it calls otherwise."""

    name: str
    members: tuple[Member, ...]
    models: Mapping[str, str] = field(default_factory=dict)

    def pick(self, tried: Collection[Member]) -> Member | None:
        """A fit target that isn't in `tried`; None where there is none.

        Among equally loaded ones turns go by weight (smooth weighted round robin), so that a lone caller spreads too.
        """
        fit = [member for member in self.members if member not in tried and member.health.is_fit]
        if not fit:
            return None
        least = min(member.load for member in fit)
        level = [member for member in fit if member.load == least]
        for member in level:
            member.credit += member.weight
        picked = max(level, key=lambda member: member.credit)
        picked.credit -= sum(member.weight for member in level)
        return picked


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a request may be sent. No attempt begins after `total_s`.

    `unsafe` repeats what may have been processed.
    """

    max_attempts: int
    total_s: float
    unsafe: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """A route's upstreams, in the order in which they are asked. `count` is told upstream, target and end."""

    upstreams: tuple[Upstream, ...]
    retry: Retry
    count: Callable[[str, str, str], None]

    def pick(self, tried: Collection[Member]) -> tuple[Upstream, Member] | None:
        """Where the next attempt goes; None where nothing is fit."""
        for upstream in self.upstreams:
            member = upstream.pick(tried)
            if member is not None:
                return upstream, member
        return None

    def has_more(self, tried: Collection[Member]) -> bool:
        """Whether `pick` would find one."""
        return any(m not in tried and m.health.is_fit for upstream in self.upstreams for m in upstream.members)

    def unavailable(self, now_s: float) -> Fault:
        """Why nothing was asked: 429 where a target said "later", in the upstream's own time; else 503."""
        members = [member for upstream in self.upstreams for member in upstream.members]
        detail = "; ".join(f"{member.label}: {member.health.detail}" for member in members)
        resting = [member.health.told_until_s for member in members if member.health.rests]
        if resting:
            return Fault(UPSTREAM_RATE_LIMITED, detail, retry_after_s=_ceil(min(resting) - now_s))
        fit_at_s = min(member.health.fit_at_s for member in members)
        return Fault(UPSTREAM_DOWN, detail, retry_after_s=_ceil(fit_at_s - now_s))


def _ceil(wait_s: float) -> int:
    return max(1, -int(-wait_s // 1))
