"""The OpenAI dialect: chat completions, as OpenAI and the many servers that speak its API send them.

Owns the error shapes; reading is in `openai_request`, `openai_usage`, `openai_stream` and `openai_text`. Bodies of the
API's other endpoints pass unchanged.
"""

import msgspec

from gateway.dialects.dialect import COMMENT, Ask, LimitFields, StreamReader
from gateway.dialects.model_name import renamed_in_body
from gateway.dialects.openai_request import read_request
from gateway.dialects.openai_stream import OpenAIStream
from gateway.dialects.openai_text import answer_text
from gateway.dialects.openai_usage import read_usage
from gateway.dialects.refusal_text import describe
from gateway.domain.decisions import Refused
from gateway.domain.faults import Fault
from gateway.domain.limits import Remedy
from gateway.domain.usage import Usage


class _Error(msgspec.Struct, gc=False):
    message: str
    type: str
    param: str | None
    code: str | None


class _ErrorBody(msgspec.Struct, gc=False):
    error: _Error


class OpenAI:
    """A `Dialect`. The error shape is that of OpenAI's API reference, which its SDKs turn into typed exceptions."""

    name = "openai"
    limit_fields = LimitFields.OPENAI
    request_id_field = b"x-request-id"
    sign_of_life = COMMENT

    def read_request(self, body: bytes, path: bytes) -> Ask:
        """What the body asks for. Raises Fault(INVALID_BODY)."""
        del path
        return read_request(body)

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
        """A reader for one streamed answer."""
        return OpenAIStream(strip_usage=strip_usage, usage_comment=self.usage_comment)

    def fault_body(self, fault: Fault, request_id: str) -> bytes:
        """`{"error": …}` with the fault's public text; the request id is told by the header."""
        del request_id
        return _error_body(fault.public, fault.kind.type, fault.kind.code)

    def refusal_status(self, refused: Refused) -> int:
        """429, whatever helps: so does OpenAI."""
        del refused
        return 429

    def refusal_body(self, refused: Refused, request_id: str) -> bytes:
        """OpenAI's `rate_limit_exceeded` where waiting helps or the request is too large, else `insufficient_quota`."""
        del request_id
        if refused.remedy is Remedy.PAY:
            return _error_body(describe(refused), "insufficient_quota", "insufficient_quota")
        kind = "tokens" if "tokens" in refused.limit else "requests"
        return _error_body(describe(refused), kind, "rate_limit_exceeded")

    def stream_fault(self, fault: Fault, request_id: str) -> bytes:
        """An error event, which SDKs raise as an APIError, and the terminator.

        A blank line goes first: it closes an event that the upstream left half sent.
        """
        return b"\n\ndata: " + self.fault_body(fault, request_id) + b"\n\ndata: [DONE]\n\n"

    def usage_comment(self, usage: Usage) -> bytes:
        """An SSE comment with the usage as JSON."""
        return b": tollway-usage " + msgspec.json.encode(usage) + b"\n\n"


def _error_body(message: str, kind: str, code: str) -> bytes:
    return msgspec.json.encode(_ErrorBody(_Error(message, kind, None, code)))
