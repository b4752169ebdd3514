"""The Gemini dialect: generateContent and its kin. Owns the error shapes; reading is in the other `gemini_` files.

Source: Google, "Errors" (google.rpc.Status with ErrorInfo and RetryInfo).
"""

from typing import Any

import msgspec

from gateway.dialects.dialect import Ask, LimitFields, StreamReader
from gateway.dialects.gemini_request import read_request
from gateway.dialects.gemini_stream import GeminiStream
from gateway.dialects.gemini_text import answer_text
from gateway.dialects.gemini_usage import read_usage
from gateway.dialects.model_name import renamed_in_path
from gateway.dialects.refusal_text import describe
from gateway.domain.decisions import Refused
from gateway.domain.faults import Fault
from gateway.domain.limits import Remedy
from gateway.domain.usage import Usage

_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_TYPE = "type.googleapis.com/google.rpc."


class Gemini:
    """A `Dialect`."""

    name = "gemini"
    limit_fields = LimitFields.OPENAI
    request_id_field = b"x-request-id"
    sign_of_life = b"\r\n"
    """An empty line: Google's SDK for Python takes a comment for JSON, and raises."""

    def read_request(self, body: bytes, path: bytes) -> Ask:
        """What is asked of the model in the path. Raises Fault(INVALID_BODY)."""
        return read_request(body, path)

    def with_model(self, path: bytes, body: bytes, model: str) -> tuple[bytes, bytes]:
        """The name stands in the path."""
        return renamed_in_path(path, model), body

    def read_usage(self, body: bytes) -> Usage | None:
        """The usage of a whole answer."""
        return read_usage(body)

    def answer_text(self, body: bytes) -> str:
        """The text of a whole answer."""
        return answer_text(body)

    def stream_reader(self, *, strip_usage: bool) -> StreamReader:
        """A reader for one streamed answer, which tells its usage unasked."""
        del strip_usage
        return GeminiStream()

    def fault_body(self, fault: Fault, request_id: str) -> bytes:
        """`{"error": {"code", "message", "status", "details"}}` with the fault's public text and its code as reason."""
        return _error_body(fault.kind.status, fault.public, fault.kind.code, request_id)

    def refusal_status(self, refused: Refused) -> int:
        """429, which clients retry; 403 where only paying helps, and 400 where only a smaller request does."""
        if refused.remedy is Remedy.PAY:
            return 403
        return 400 if refused.retry_after_s is None else 429

    def refusal_body(self, refused: Refused, request_id: str) -> bytes:
        """`RESOURCE_EXHAUSTED` with a RetryInfo; `PERMISSION_DENIED` where only paying helps, `INVALID_ARGUMENT` where
        only a smaller request does. Google's SDKs go by the status alone.
        """  # noqa: D205
        reason = "insufficient_quota" if refused.remedy is Remedy.PAY else "rate_limit_exceeded"
        wait_s = refused.retry_after_s if refused.remedy is Remedy.WAIT else None
        return _error_body(self.refusal_status(refused), describe(refused), reason, request_id, wait_s)

    def stream_fault(self, fault: Fault, request_id: str) -> bytes:
        """An event with the error in it. A blank line goes first: it closes an event left half sent."""
        return b"\r\n\r\ndata: " + self.fault_body(fault, request_id) + b"\r\n\r\n"

    def usage_comment(self, usage: Usage) -> bytes:
        """Nothing: its SDKs can't read comments, and every stream tells its usage."""
        del usage
        return b""


def _error_body(status: int, message: str, reason: str, request_id: str, wait_s: int | None = None) -> bytes:
    details: list[dict[str, Any]] = [
        {"@type": f"{_TYPE}ErrorInfo", "reason": reason.upper(), "domain": "tollway"},
        {"@type": f"{_TYPE}RequestInfo", "requestId": request_id},
    ]
    if wait_s is not None:
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{wait_s}s"})
    name = _STATUSES.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
    return msgspec.json.encode({"error": {"code": status, "message": message, "status": name, "details": details}})
