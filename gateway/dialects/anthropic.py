"""The Anthropic dialect: the Messages API. Owns the error shapes; reading is in the other `anthropic_` files.

Source of types and statuses: Anthropic, "Errors". Bodies of the API's other endpoints pass unchanged.
"""

import msgspec

from gateway.dialects.anthropic_request import read_request
from gateway.dialects.anthropic_stream import AnthropicStream
from gateway.dialects.anthropic_text import answer_text
from gateway.dialects.anthropic_usage import read_usage
from gateway.dialects.dialect import COMMENT, Ask, LimitFields, StreamReader
from gateway.dialects.model_name import renamed_in_body
from gateway.dialects.refusal_text import describe
from gateway.domain.decisions import Refused
from gateway.domain.faults import Fault
from gateway.domain.limits import Remedy
from gateway.domain.usage import Usage

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class _Error(msgspec.Struct, gc=False):
    type: str
    message: str


class _ErrorBody(msgspec.Struct, gc=False, tag_field="type", tag="error"):
    error: _Error
    request_id: str


class Anthropic:
    """A `Dialect`."""

    name = "anthropic"
    limit_fields = LimitFields.ANTHROPIC
    request_id_field = b"request-id"
    sign_of_life = COMMENT

    def read_request(self, body: bytes, path: bytes) -> Ask:
        """What the body asks for. Raises Fault(INVALID_BODY)."""
        return read_request(body, path)

    def with_model(self, path: bytes, body: bytes, model: str) -> tuple[bytes, bytes]:
        """The name stands in the body."""
        return path, renamed_in_body(body, model)

    def read_usage(self, body: bytes) -> Usage | None:
        """The usage of a whole answer."""
        return read_usage(body)

    def answer_text(self, body: bytes) -> str:
        """The text of a whole answer."""
        return answer_text(body)

    def stream_reader(self, *, strip_usage: bool) -> StreamReader:
        """A reader for one streamed answer, which tells its usage unasked."""
        del strip_usage
        return AnthropicStream()

    def fault_body(self, fault: Fault, request_id: str) -> bytes:
        """`{"type": "error", "error": {"type", "message"}, "request_id"}` with the fault's public text."""
        status = fault.kind.status
        kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return _error_body(kind, fault.public, request_id)

    def refusal_status(self, refused: Refused) -> int:
        """429, which SDKs retry; 402 where only paying helps, which none does."""
        return 402 if refused.remedy is Remedy.PAY else 429

    def refusal_body(self, refused: Refused, request_id: str) -> bytes:
        """`rate_limit_error`, or `billing_error` where only paying helps."""
        return _error_body(_TYPES[self.refusal_status(refused)], describe(refused), request_id)

    def stream_fault(self, fault: Fault, request_id: str) -> bytes:
        """An `error` event, which SDKs raise. A blank line goes first: it closes an event left half sent."""
        return b"\n\nevent: error\ndata: " + self.fault_body(fault, request_id) + b"\n\n"

    def usage_comment(self, usage: Usage) -> bytes:
        """An SSE comment with the usage as JSON."""
        return b": tollway-usage " + msgspec.json.encode(usage) + b"\n\n"


def _error_body(kind: str, message: str, request_id: str) -> bytes:
    return msgspec.json.encode(_ErrorBody(_Error(kind, message), request_id))
