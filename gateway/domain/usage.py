"""What a request used, and the event that tells the ledger of it. Pure values."""

from enum import StrEnum

import msgspec

from gateway.domain.limits import Unit


class CountedBy(StrEnum):
    """Who counted the tokens of an answer."""

    UPSTREAM = "upstream"
    TOKENIZER = "tokenizer"
    ESTIMATE = "estimate"
    APP = "app"
    """The app that ran the request by itself says so."""


class Outcome(StrEnum):
    """How a request that was admitted ended."""

    OK = "ok"
    CLIENT_GONE = "client_gone"
    STOPPED = "stopped"
    """A stream was ended by the gateway, as the limits had no room for more of it."""
    CLIENT_ERROR = "client_error"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_CUT = "upstream_cut"
    FAULT = "fault"
    REAPED = "reaped"
    """Its gateway died, or fell silent for longer than a lease."""
    IMPORTED = "imported"
    """No request: what an account had used in another system before it came here."""
    RELEASED = "released"
    """An app that runs its requests by itself gave it back: it did not run."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens by kind. `cached_tokens` is a part of `input_tokens`; `reasoning_tokens` a part of `output_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Input and output together: what the unit `tokens` counts."""
        return self.input_tokens + self.output_tokens

    def plus(self, other: "Usage") -> "Usage":
        """Both together."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


UNITS = (Unit.REQUESTS, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS)
"""The order of `amounts`."""


def amounts(requests: int, usage: Usage) -> tuple[int, int, int, int]:
    """What a request that used this counts against a limit of each unit, in the order of `UNITS`."""
    input_tokens, output_tokens = usage.input_tokens, usage.output_tokens
    return requests, input_tokens + output_tokens, input_tokens, output_tokens


def amount(unit: Unit, requests: int, usage: Usage) -> int:
    """What a request that used this counts against a limit of `unit`."""
    return amounts(requests, usage)[UNITS.index(unit)]


class UsageEvent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One settled request, as it travels on the usage stream (MessagePack array) and stands in the ledger.

    New fields go at the end, with a default: gateways of two versions may share a stream.
    Times are Unix milliseconds by the limiter's clock; `admitted_ms` decides which windows, hours and days the event
    belongs to. `requests` is what it counts against request limits: 1, or 0 where the request was given back.
    `conversation_id` and `message_id` are the app's own words, "" where it said none.
    A correction (`correction`) has a request id of its own and may count below zero.
    """

    request_id: str
    account_id: str
    key_id: str
    tier: str
    route: str
    endpoint: str
    model: str
    upstream: str
    admitted_ms: int
    settled_ms: int
    status: int
    outcome: Outcome
    counted_by: CountedBy
    streamed: bool
    requests: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    estimated_tokens: int
    request_bytes: int
    response_bytes: int
    conversation_id: str = ""
    message_id: str = ""


LATE = "/late"
"""What the request id of a correction ends in."""


def correction(charged: UsageEvent, true: UsageEvent | None) -> UsageEvent:
    """The event that makes the sum of both what is true: `true` less `charged`, in the window that was charged.

    `true` None is a request that turned out never to have run.
    """
    return msgspec.structs.replace(
        charged if true is None else true,
        request_id=charged.request_id + LATE,
        admitted_ms=charged.admitted_ms,
        **{name: (getattr(true, name) if true else 0) - getattr(charged, name) for name in _COUNTS},
    )


def corrected(event: UsageEvent, late: UsageEvent | None) -> UsageEvent:
    """What a request came to with the correction of its reap, where there is one."""
    if late is None:
        return event
    sums = {name: getattr(event, name) + getattr(late, name) for name in _COUNTS}
    return msgspec.structs.replace(late, request_id=event.request_id, **sums)


_COUNTS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "estimated_tokens",
    "request_bytes",
    "response_bytes",
)
