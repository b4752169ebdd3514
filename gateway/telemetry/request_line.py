"""The log line of one request, made from its record. What is not known, or did not happen, is left out."""

import msgspec

from gateway.telemetry.record import RequestRecord
from gateway.telemetry.redaction import redact

_TEXT_CHARS = 256
"""The most that a line repeats of a text from outside."""


class RequestLine(msgspec.Struct, omit_defaults=True, gc=False):
    """The fields in the order in which people read them; the log fills in `time` and `level`.

    `admission_ms` is from the request's head to the limiter's decision, `upstream_ms` from there to the upstream's
    head, `first_byte_ms` and `duration_ms` from the request's head to the first body byte sent and to the end.
    """

    time: str
    level: str
    event: str
    request_id: str
    method: str
    path: str
    status: int
    outcome: str
    route: str = ""
    endpoint: str = ""
    dialect: str = ""
    account_id: str = ""
    key_id: str = ""
    tier: str = ""
    fault: str = ""
    detail: str = ""
    limit: str = ""
    model: str = ""
    upstream: str = ""
    upstream_status: int = 0
    estimated_tokens: int = 0
    counted_by: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    streamed: bool = False
    chunks: int = 0
    admission_ms: float = 0.0
    upstream_ms: float = 0.0
    first_byte_ms: float = 0.0
    duration_ms: float = 0.0


def request_line(record: RequestRecord) -> RequestLine:
    """The line of a record."""
    start_s, reserved_s = record.started_s, record.reserved_s
    line = RequestLine(
        "",
        "",
        "request",
        record.request_id,
        record.method[:16],
        _from_outside(record.path.partition("?")[0]),
        record.status,
        outcome_of(record),
        record.route,
        record.endpoint,
        record.dialect,
        record.account_id,
        record.key_id,
        record.tier,
        record.fault,
        _from_outside(record.detail) if record.detail else "",
        record.limit,
        _from_outside(record.model) if record.model else "",
        record.upstream,
        record.upstream_status,
        record.estimated_tokens,
        record.counted_by,
        record.input_tokens,
        record.output_tokens,
        record.cached_tokens,
        record.reasoning_tokens,
        record.request_bytes,
        record.response_bytes,
        record.streamed,
        record.chunks,
    )
    if reserved_s:
        line.admission_ms = round((reserved_s - start_s) * 1000, 3)
        if record.forwarded_s:
            line.upstream_ms = round((record.forwarded_s - reserved_s) * 1000, 3)
    if record.first_byte_s:
        line.first_byte_ms = round((record.first_byte_s - start_s) * 1000, 3)
    line.duration_ms = round((record.ended_s - start_s) * 1000, 3)
    return line


def outcome_of(record: RequestRecord) -> str:
    """The outcome as the record tells it, or as what it holds implies: `refused`, `fault`, else `ok`."""
    return record.outcome or ("refused" if record.limit else "fault" if record.fault else "ok")


def _from_outside(text: str) -> str:
    return redact(text[:_TEXT_CHARS])
