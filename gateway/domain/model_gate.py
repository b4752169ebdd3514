"""Holds a request against the models and sizes that its route and its tier give. Pure.

What is refused is told to the caller with what would be taken: the cap, or the tiers that have the model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.domain.faults import (
    BODY_TOO_LARGE,
    CONTEXT_TOO_LARGE,
    MAX_TOKENS_TOO_LARGE,
    MODEL_NOT_ALLOWED,
    Fault,
)
from gateway.domain.gates import Gate
from gateway.domain.limits import Tier
from gateway.domain.models import ModelRules


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for: the model's own name, and sizes.

    `names_model` is False of requests that ask no model for anything. `output_tokens` is None where the caller set no
    maximum, and `is_bounded` False where it could not have set one.
    """

    model: str
    names_model: bool
    body_bytes: int
    input_tokens: int
    output_tokens: int | None
    is_bounded: bool


@dataclass(frozen=True, slots=True)
class ModelGate:
    """The route's own gate, then its models, then what the tier gives. `known` are all tiers."""

    before: Gate | None
    route: ModelRules
    known: Mapping[str, Tier]
    asked: Asked

    def shut(self, tier: Tier, now_s: int) -> Fault | None:
        """Why an account whose tier was made out as `tier` may not ask for this; None where it may."""
        fault = None if self.before is None else self.before.shut(tier, now_s)
        return fault or self._model(tier) or self._size(tier)

    def _model(self, tier: Tier) -> Fault | None:
        model = self.asked.model
        if not self.asked.names_model or (self.route.allows(model) and tier.models.allows(model)):
            return None
        if not model:
            return Fault(MODEL_NOT_ALLOWED, public=f"The tier {tier.name} has some models only: name one of them.")
        who = f"the tier {tier.name}" if self.route.allows(model) else "this route"
        opens = self._tiers(lambda other: self.route.allows(model) and other.models.allows(model))
        return Fault(MODEL_NOT_ALLOWED, public=f"The model {model[:100]} is not one of {who}. {opens}")

    def _size(self, tier: Tier) -> Fault | None:
        asked, caps = self.asked, tier.caps
        if 0 < caps.body_bytes < asked.body_bytes:
            opens = self._tiers(lambda other: other.caps.body_bytes == 0 or other.caps.body_bytes >= asked.body_bytes)
            text = f"The request body is larger than the {caps.body_bytes} bytes of the tier {tier.name}. {opens}"
            return Fault(BODY_TOO_LARGE, public=text)
        if 0 < caps.input_tokens < asked.input_tokens:
            text = f"The input is about {asked.input_tokens} tokens; the tier {tier.name} takes {caps.input_tokens}."
            return Fault(CONTEXT_TOO_LARGE, public=text)
        if not caps.output_tokens or not asked.is_bounded:
            return None
        if asked.output_tokens is None or asked.output_tokens > caps.output_tokens:
            text = f"The tier {tier.name} gives at most {caps.output_tokens} output tokens a request: ask for no more."
            return Fault(MAX_TOKENS_TOO_LARGE, public=text)
        return None

    def _tiers(self, have: Callable[[Tier], bool]) -> str:
        names = [name for name, other in self.known.items() if have(other)]
        return f"Tiers that have it: {', '.join(names)}." if names else "No tier has it."
