"""The dialect port: what differs between API shapes. Stateless objects; a `StreamReader` holds one stream's state."""

from enum import IntEnum
from typing import Protocol

import msgspec

from gateway.domain.decisions import Refused
from gateway.domain.faults import Fault
from gateway.domain.usage import Usage

RawHeaders = list[tuple[bytes, bytes]]


COMMENT = b": keep-alive\n\n"
"""WHATWG HTML, "Server-sent events": a line that begins with a colon is ignored, and a blank line without data too."""


class LimitFields(IntEnum):
    """Under which names a dialect's clients look for their limits, beside `RateLimit` and `RateLimit-Policy`."""

    OPENAI = 0
    """`x-ratelimit-limit-requests` and the like; resets as `90s`."""
    BARE = 1
    """The same, and `x-ratelimit-limit` and the like; resets in seconds."""
    ANTHROPIC = 2
    """`anthropic-ratelimit-requests-limit` and the like; resets as a time of RFC 3339."""


class Ask(msgspec.Struct, frozen=True, gc=False):
    """What admission and forwarding must know of a request.

    `prompt_bytes` is the length of the text to be read by the model (the whole body is a fair stand-in); `max_output`
    the most output tokens that it may cost, n and best_of multiplied in, or None where the caller set no bound;
    `body` is what goes upstream: the caller's own bytes, or these with a field added. `strip_usage` says that the usage
    chunk was asked for by the gateway alone and has to be taken out of the stream again; `array_stream` that a good
    answer comes piece by piece as one JSON array, not as events; `estimate_stands` that the answer has no text to count
    by, or is written out of sight: where no usage is reported the estimate is charged.
    """

    model: str
    streamed: bool
    prompt_bytes: int
    max_output: int | None
    choices: int
    body: bytes
    strip_usage: bool = False
    array_stream: bool = False
    estimate_stands: bool = False


class StreamReader(Protocol):
    """Watches one streamed answer in passing."""

    finished: bool
    """The stream's own terminator was seen: a cut after it loses nothing."""
    error_seen: bool
    """The upstream told of an error inside the stream."""

    @property
    def usage(self) -> Usage | None:
        """The usage that the upstream reported so far; None until it did."""
        ...

    @property
    def told(self) -> Usage | None:
        """What it told ahead of that: the input, before the answer; None where it tells all at once."""
        ...

    @property
    def broken_off(self) -> bool:
        """After `end`: what was seen of the stream lacks its own ending, however cleanly the connection ended."""
        ...

    @property
    def answered(self) -> bool:
        """Something of the answer was seen: usage, or what a model wrote, said or drew. Its announcement is nothing."""
        ...

    @property
    def mid_event(self) -> bool:
        """What was sent on so far ends inside an event, which was too long to be held back: nothing of our own may be
        put there.
        """  # noqa: D205
        ...

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they arrived; return those to send on now: whole events, or b"" while there is none."""
        ...

    def end(self) -> bytes:
        """The upstream is done: return what was held back."""
        ...

    def text(self) -> str:
        """The answer's text as far as it was seen, for the tokenizer, where no usage was reported."""
        ...

    def text_bytes(self) -> int:
        """The length of `text()` in bytes, at a cost that does not grow with it."""
        ...

    def stop(self, usage: Usage) -> bytes:
        """End the stream here, in the upstream's place, as one that ran into its maximum of output tokens.

        The events that SDKs take for such an end, terminator included; `usage` is what is charged, told where the
        caller asked for it. Asked for only while not `mid_event`; nothing is fed after it.
        """
        ...

    def close_array(self, element: bytes) -> bytes:
        """Of a stream that is one JSON array: `element` behind its last one, and its end.

        b"" where that has no place (`mid_event`), and of any other stream.
        """
        ...


class Dialect(Protocol):
    """One API shape. `name` is its name in gateway.yaml."""

    name: str
    limit_fields: LimitFields
    request_id_field: bytes
    """The field in which its SDKs look for a request's id, on answers of the gateway's own."""
    sign_of_life: bytes
    """What goes between two events while the upstream is silent: nothing to its SDKs, a byte to every proxy."""

    def read_request(self, body: bytes, path: bytes) -> Ask:
        """What the body asks for, sent to `path` (without its query).

        Raises Fault(INVALID_BODY) with a public text that says what and where.
        """
        ...

    def with_model(self, path: bytes, body: bytes, model: str) -> tuple[bytes, bytes]:
        """Path (with its query) and body of a request that asks for `model`, every other byte as it was.

        Raises Fault(INVALID_BODY).
        """
        ...

    def read_usage(self, body: bytes) -> Usage | None:
        """The usage that a whole (unstreamed) answer reports, None where it reports none. Never raises."""
        ...

    def answer_text(self, body: bytes) -> str:
        """The text of a whole answer, for the tokenizer, where no usage was reported. Never raises."""
        ...

    def stream_reader(self, *, strip_usage: bool) -> StreamReader:
        """A reader for one streamed answer."""
        ...

    def fault_body(self, fault: Fault, request_id: str) -> bytes:
        """The JSON body that tells of a fault in this dialect's own error shape. Only public texts."""
        ...

    def refusal_status(self, refused: Refused) -> int:
        """The HTTP status of a refusal."""
        ...

    def refusal_body(self, refused: Refused, request_id: str) -> bytes:
        """The JSON body of a refusal, in this dialect's own shape; `wait` and `pay` never look alike."""
        ...

    def stream_fault(self, fault: Fault, request_id: str) -> bytes:
        """The event(s) that end a stream validly after its head was sent, telling of the fault."""
        ...

    def usage_comment(self, usage: Usage) -> bytes:
        """An SSE comment that carries the usage to the app: ignored by every SDK, readable by who looks for it."""
        ...
