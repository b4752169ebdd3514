"""Gates: routes that are open to some tiers only, or at some times only. Pure.

What shuts a gate is told to the caller with what would open it: another tier by name, or a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.domain.faults import OUTSIDE_SCHEDULE, ROUTE_NOT_IN_TIER, Fault
from gateway.domain.limits import Tier


@dataclass(frozen=True, slots=True)
class Gate:
    """Of the route `path`: open to `tiers` (empty: to all) that have the feature `needs` and keep to `schedule`.

    `known` are all tiers, for saying which of them it is open to.
    """

    path: str
    known: Mapping[str, Tier]
    tiers: frozenset[str] = frozenset()
    needs: str = ""
    schedule: str = ""

    def shut(self, tier: Tier, now_s: int) -> Fault | None:
        """Why an account whose tier was made out as `tier` may not pass at a Unix second; None where it may."""
        if not self._has(tier):
            opened_by = [name for name, other in self.known.items() if self._has(other)]
            text = f"The route {self.path} is not open to the tier {tier.name}. {_open_to(opened_by)}"
            return Fault(ROUTE_NOT_IN_TIER, public=text)
        schedule = tier.schedules.get(self.schedule)
        if schedule is None or schedule.is_open(now_s):
            return None
        opens = datetime.fromtimestamp(schedule.next_s(now_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = (
            f"The route {self.path} follows the schedule {self.schedule} of the tier {tier.name}. It opens at {opens}."
        )
        return Fault(OUTSIDE_SCHEDULE, public=text)

    def _has(self, tier: Tier) -> bool:
        if self.tiers and tier.name not in self.tiers:
            return False
        if self.needs and not tier.features.get(self.needs, False):
            return False
        return not self.schedule or self.schedule in tier.schedules


def _open_to(tiers: list[str]) -> str:
    if not tiers:
        return "No tier opens it."
    return f"It is open to {', '.join(tiers)}."
