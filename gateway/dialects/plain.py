"""The plain dialect: any API, of whose bodies nothing is known. Requests are counted, tokens are not.

Every body and every byte passes as it is; nothing here can fail.
"""

import msgspec

from gateway.dialects.dialect import COMMENT, Ask, LimitFields, StreamReader
from gateway.dialects.refusal_text import describe
from gateway.domain.decisions import Refused
from gateway.domain.faults import Fault
from gateway.domain.limits import Remedy
from gateway.domain.usage import Usage


class _Error(msgspec.Struct, gc=False):
    code: str
    message: str
    request_id: str


class _ErrorBody(msgspec.Struct, gc=False):
    error: _Error


class PlainStream:
    """A `StreamReader` that only lets pass. `finished` is what the transport says: a body read to its end."""

    __slots__ = ("error_seen", "finished", "told", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.told: Usage | None = None
        self.finished = False
        self.error_seen = False

    @property
    def broken_off(self) -> bool:
        """Never: how this body should end is not known."""
        return False

    @property
    def answered(self) -> bool:
        """Always: what the answer is made of is not known."""
        return True

    @property
    def mid_event(self) -> bool:
        """Always: where this body has room for anything else is not known."""
        return True

    def feed(self, data: bytes) -> bytes:
        """The same bytes."""
        return data

    def end(self) -> bytes:
        """Nothing was held back."""
        self.finished = True
        return b""

    def text(self) -> str:
        """No text is known."""
        return ""

    def text_bytes(self) -> int:
        """No text is known."""
        return 0

    def stop(self, usage: Usage) -> bytes:
        """Nothing: only its upstream knows how this body ends."""
        del usage
        return b""

    def close_array(self, element: bytes) -> bytes:
        """It is no array."""
        del element
        return b""


class Plain:
    """A `Dialect`."""

    name = "plain"
    limit_fields = LimitFields.BARE
    request_id_field = b"x-request-id"
    sign_of_life = COMMENT

    def read_request(self, body: bytes, path: bytes) -> Ask:
        """Asks for no tokens."""
        del path
        return Ask(model="", streamed=False, prompt_bytes=0, max_output=0, choices=1, body=body)

    def with_model(self, path: bytes, body: bytes, model: str) -> tuple[bytes, bytes]:
        """None is known."""
        del model
        return path, body

    def read_usage(self, body: bytes) -> Usage | None:
        """None is known."""
        del body
        return None

    def answer_text(self, body: bytes) -> str:
        """None is known."""
        del body
        return ""

    def stream_reader(self, *, strip_usage: bool) -> StreamReader:
        """A reader that lets everything pass."""
        del strip_usage
        return PlainStream()

    def fault_body(self, fault: Fault, request_id: str) -> bytes:
        """`{"error": {"code", "message", "request_id"}}`."""
        return _error_body(fault.kind.code, fault.public, request_id)

    def refusal_status(self, refused: Refused) -> int:
        """429, whatever helps."""
        del refused
        return 429

    def refusal_body(self, refused: Refused, request_id: str) -> bytes:
        """Code `rate_limit_exceeded` where waiting helps or the request is too large, else `insufficient_quota`."""
        code = "insufficient_quota" if refused.remedy is Remedy.PAY else "rate_limit_exceeded"
        return _error_body(code, describe(refused), request_id)

    def stream_fault(self, fault: Fault, request_id: str) -> bytes:
        """Nothing: in a body of unknown shape only a cut connection can tell of a fault."""
        del fault, request_id
        return b""

    def usage_comment(self, usage: Usage) -> bytes:
        """Nothing: not every body has room for a comment."""
        del usage
        return b""


def _error_body(code: str, message: str, request_id: str) -> bytes:
    return msgspec.json.encode(_ErrorBody(_Error(code, message, request_id)))
