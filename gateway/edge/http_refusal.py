"""The server's own answers, to requests that never reach the gateway or that it left without an answer."""

from gateway.dialects.registry import DIALECTS
from gateway.domain.faults import Fault
from gateway.edge.http_response_head import response_head
from gateway.edge.reply import JSON
from gateway.edge.request_id import new_request_id
from gateway.upstream.transport import RawHeaders


def refusal(fault: Fault, defaults: RawHeaders, *, head_only: bool = False) -> bytes:
    """A whole answer in OpenAI's error shape, as no route is known yet; the connection closes after it."""
    body = b"" if head_only else DIALECTS["openai"].fault_body(fault, "")
    fields = [*defaults, JSON, (b"content-length", b"%d" % len(body)), (b"x-request-id", new_request_id().encode())]
    if fault.kind.status == 503:
        fields.append((b"retry-after", b"1"))
    head, *_ = response_head(fault.kind.status, fields, "1.1", keep=False, head_only=head_only)
    return head + body
