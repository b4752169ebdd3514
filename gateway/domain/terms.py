"""Terms: what an account is granted or denied beyond its tier, by a subscription or by hand. Pure values."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from gateway.domain.limits import MAXIMUM, Unit, Window


class Terms(msgspec.Struct, frozen=True, omit_defaults=True):
    """Each named thing takes the place of the tier's own.

    `limits` by name (`tokens/month`): the maximum, None for unbounded. `concurrency`: UNSET leaves the tier's, None is
    unbounded. `numbers` and `features` are entitlements that the gateway tells of and doesn't count.
    """

    limits: dict[str, int | None] = {}
    concurrency: int | UnsetType | None = UNSET
    numbers: dict[str, float] = {}
    features: dict[str, bool] = {}


NO_TERMS = Terms()


def merged(first: Terms, second: Terms) -> Terms:
    """Both at once; where they name the same, `second` counts."""
    if second == NO_TERMS:
        return first
    return Terms(
        first.limits | second.limits,
        first.concurrency if second.concurrency is UNSET else second.concurrency,
        first.numbers | second.numbers,
        first.features | second.features,
    )


def limit_named(name: str) -> tuple[Unit, Window] | None:
    """The unit and window of a limit's name; None where there is no such limit."""
    unit, _, window = name.partition("/")
    return (Unit(unit), Window(window)) if unit in _UNITS and window in _WINDOWS else None


def unfit_terms(terms: Terms) -> list[str]:
    """What is wrong with terms that someone wrote, a sentence each; nothing where they can be kept."""
    wrong = [
        f"`{name}` is no limit; write unit/window, of the units {_listed(_UNITS)} and the windows {_listed(_WINDOWS)}."
        for name in terms.limits
        if limit_named(name) is None
    ]
    counts: dict[str, Any] = {**terms.limits, "concurrency": None if terms.concurrency is UNSET else terms.concurrency}
    wrong += [
        f"`{name}` has to be from 0 to {MAXIMUM}, or null for unbounded."
        for name, count in counts.items()
        if count is not None and not 0 <= count <= MAXIMUM
    ]
    return wrong


def _listed(words: frozenset[str]) -> str:
    return ", ".join(sorted(words))


_UNITS = frozenset(unit.value for unit in Unit)
_WINDOWS = frozenset(window.value for window in Window)
