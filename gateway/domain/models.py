"""Which models a tier or a route gives, under which names, and how large a request may be. Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class ModelRules:
    """`allow` holds globs (`gpt-4o*`), empty for any model; `aliases` are other names: {alias: model}."""

    allow: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)

    def allows(self, model: str) -> bool:
        """Whether this is one of its models."""
        return not self.allow or any(fnmatchcase(model, glob) for glob in self.allow)


@dataclass(frozen=True, slots=True)
class Caps:
    """The largest request that a tier takes; 0 is unbounded. Tokens are those of one request."""

    body_bytes: int = 0
    output_tokens: int = 0
    input_tokens: int = 0


ANY_MODEL = ModelRules()
UNCAPPED = Caps()
