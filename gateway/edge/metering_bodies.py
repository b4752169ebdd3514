"""The bodies of the metering API. Fails with Fault(INVALID_BODY), whose public text names the field and the mistake."""

from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.domain.faults import INVALID_BODY, Fault
from gateway.domain.metered import OWN_ID
from gateway.domain.usage import Outcome, Usage

MOST_TOKENS = 1 << 40
LONGEST_LEASE_S = 3_600

Count = Annotated[int, Meta(ge=0, le=MOST_TOKENS)]
OwnId = Annotated[str, Meta(pattern=OWN_ID)]
Model = Annotated[str, Meta(max_length=200)]
LeaseS = Annotated[int, Meta(ge=1, le=LONGEST_LEASE_S)]

OUTCOMES = (
    Outcome.OK,
    Outcome.CLIENT_GONE,
    Outcome.STOPPED,
    Outcome.CLIENT_ERROR,
    Outcome.UPSTREAM_ERROR,
    Outcome.UPSTREAM_CUT,
)
"""How an app may say that its request ended."""


class Estimate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request may cost at most. Its input in tokens, or as the bytes of its prompt's text."""

    input_tokens: Count | UnsetType = UNSET
    prompt_bytes: Count | UnsetType = UNSET
    output_tokens: Count = 0


class Reported(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request used: cached tokens are a part of the input, reasoning tokens of the output."""

    input_tokens: Count = 0
    output_tokens: Count = 0
    cached_tokens: Count = 0
    reasoning_tokens: Count = 0

    @property
    def usage(self) -> Usage:
        """The same as the rest of the gateway has it."""
        return Usage(self.input_tokens, self.output_tokens, self.cached_tokens, self.reasoning_tokens)


class ReserveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of `reserve`. Without a request id one is made."""

    estimate: Estimate
    request_id: OwnId = ""
    model: Model = ""
    lease_s: LeaseS | UnsetType = UNSET


class SettleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of `settle`, and of `usage`, where a request id is made if there is none."""

    usage: Reported
    request_id: OwnId = ""
    model: Model = ""
    outcome: Outcome = Outcome.OK


class ExtendBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of `extend`: all that shall be held from now on."""

    request_id: OwnId
    estimate: Estimate


class LeaseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of `lease`: the time from now on, and what was used so far."""

    request_id: OwnId
    lease_s: LeaseS | UnsetType = UNSET
    usage: Reported | UnsetType = UNSET


class ReleaseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of `release`."""

    request_id: OwnId


_Body = TypeVar("_Body", ReserveBody, SettleBody, ExtendBody, LeaseBody, ReleaseBody)


def read(kind: type[_Body], body: bytes) -> _Body:
    """The body as a value. Raises Fault(INVALID_BODY)."""
    try:
        read = msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(f"{error}.".replace("`$.", "`")) from None
    wrong = _contradiction(read)
    if wrong:
        raise _invalid(wrong)
    return read


def own_id(given: str) -> str:
    """A request id that has to be there. Raises Fault(INVALID_BODY)."""
    if not given:
        raise _invalid("Object missing required field `request_id`.")
    return given


def _contradiction(body: ReserveBody | SettleBody | ExtendBody | LeaseBody | ReleaseBody) -> str:
    if isinstance(body, ReserveBody | ExtendBody):
        given = body.estimate.input_tokens is not UNSET, body.estimate.prompt_bytes is not UNSET
        if all(given):
            return "`estimate` takes `input_tokens` or `prompt_bytes`, not both."
        return "" if any(given) else "`estimate` needs `input_tokens` or `prompt_bytes`."
    if isinstance(body, SettleBody) and body.outcome not in OUTCOMES:
        return f"`outcome` is one of {', '.join(OUTCOMES)}."
    used = UNSET if isinstance(body, ReleaseBody) else body.usage
    if used is UNSET:
        return ""
    if used.cached_tokens > used.input_tokens:
        return "`usage.cached_tokens` is a part of `input_tokens`, and can't be more."
    if used.reasoning_tokens > used.output_tokens:
        return "`usage.reasoning_tokens` is a part of `output_tokens`, and can't be more."
    return ""


def _invalid(text: str) -> Fault:
    return Fault(INVALID_BODY, text, public=f"The request body is not what this takes: {text}")
