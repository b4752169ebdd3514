"""What one API key may do, within what its account may: routes, models, and limits of its own. Pure values."""

from dataclasses import replace
from fnmatch import fnmatchcase

import msgspec

from gateway.domain.limits import MAXIMUM, SLOTS, Limit, Remedy, Tier
from gateway.domain.terms import limit_named

MOST_LIMITS = 8
_MOST_GLOBS = 64
_LONGEST = 256


class KeyTerms(msgspec.Struct, frozen=True, omit_defaults=True):
    """Empty means: all that the account may.

    `routes` and `models` are globs, of which a request's path and model have to match one. `limits` by name
    (`tokens/day`) and `concurrency` bind this key beside the account's own. Keys with the same `counter` count
    together: a key and those that it was rotated to; empty is the key's own id.
    """

    routes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    limits: dict[str, int] = {}
    concurrency: int | None = None
    counter: str = ""

    @property
    def is_limited(self) -> bool:
        """Whether the key has limits of its own."""
        return bool(self.limits) or self.concurrency is not None

    @property
    def is_scoped(self) -> bool:
        """Whether there are routes or models that it is not for."""
        return bool(self.routes or self.models)

    def takes_route(self, path: str) -> bool:
        """Whether the key is for this path."""
        return not self.routes or any(fnmatchcase(path, glob) for glob in self.routes)

    def takes_model(self, model: str) -> bool:
        """Whether the key is for this model; a request that names none is for no model of a list."""
        return not self.models or any(fnmatchcase(model, glob) for glob in self.models if model)


ANYTHING = KeyTerms()


def limits_of(terms: KeyTerms, counter: str) -> tuple[Limit, ...]:
    """The key's own limits, under its counter. Nothing that is paid helps against them, so each says to wait."""
    named = [(limit_named(name), maximum) for name, maximum in terms.limits.items()]
    return tuple(Limit(*one, maximum, Remedy.WAIT, counter) for one, maximum in named if one is not None)


def bound_by(tier: Tier, terms: KeyTerms, counter: str) -> Tier:
    """The tier with the key's own limits beside the account's."""
    slots = None if terms.concurrency is None else (SLOTS + counter, terms.concurrency)
    return replace(tier, limits=tier.limits + limits_of(terms, counter), slots=slots)


def unfit_key_terms(terms: KeyTerms) -> list[str]:
    """What is wrong with terms that someone wrote, a sentence each; nothing where they can be kept."""
    wrong = [
        f"`{name}` is no limit; write unit/window, like tokens/day." for name in terms.limits if not limit_named(name)
    ]
    counts = {**terms.limits, "concurrency": terms.concurrency or 0}
    wrong += [f"`{name}` has to be from 0 to {MAXIMUM}." for name, count in counts.items() if not 0 <= count <= MAXIMUM]
    wrong += [f"`{glob}` has to begin with a slash, like /v1/chat/*." for glob in terms.routes if glob[:1] != "/"]
    if len(terms.limits) > MOST_LIMITS:
        wrong.append(f"A key can have {MOST_LIMITS} limits at most.")
    globs = (*terms.routes, *terms.models)
    if len(globs) > _MOST_GLOBS or any(not glob or len(glob) > _LONGEST for glob in globs):
        wrong.append(f"A key can have {_MOST_GLOBS} routes and models at most, of 1 to {_LONGEST} letters each.")
    return wrong
