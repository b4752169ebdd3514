"""The log line of one request, made from its record. What is not known, or did not happen, is left out."""

from typing import Any

from gateway.telemetry.record import RequestRecord
from gateway.telemetry.redaction import redact

_TEXT_CHARS = 256
"""The most that a line repeats of a text from outside."""


def request_fields(record: RequestRecord) -> dict[str, Any]:
    """The fields of the line, in the order in which people read them; the log fills in `time` and `level`.

    `admission_ms` is from the request's head to the limiter's decision, `upstream_ms` from there to the upstream's
    head, `first_byte_ms` and `duration_ms` from the request's head to the first body byte sent and to the end.
    """
    fields: dict[str, Any] = {
        "time": "",
        "level": "",
        "event": "request",
        "request_id": record.request_id,
        "method": record.method[:16],
        "path": _from_outside(record.path.partition("?")[0]),
        "status": record.status,
        "outcome": outcome_of(record),
    }
    if record.route:
        fields["route"] = record.route
        fields["endpoint"] = record.endpoint
        fields["dialect"] = record.dialect
    if record.account_id:
        fields["account_id"] = record.account_id
        fields["key_id"] = record.key_id
        fields["tier"] = record.tier
    if record.fault:
        fields["fault"] = record.fault
        fields["detail"] = _from_outside(record.detail)
    if record.limit:
        fields["limit"] = record.limit
    _add_usage(fields, record)
    _add_sizes(fields, record)
    _add_times(fields, record)
    return fields


def outcome_of(record: RequestRecord) -> str:
    """The outcome as the record tells it, or as what it holds implies: `refused`, `fault`, else `ok`."""
    return record.outcome or ("refused" if record.limit else "fault" if record.fault else "ok")


def _add_usage(fields: dict[str, Any], record: RequestRecord) -> None:
    if record.model:
        fields["model"] = _from_outside(record.model)
    if record.upstream:
        fields["upstream"] = record.upstream
        fields["upstream_status"] = record.upstream_status
    if record.estimated_tokens:
        fields["estimated_tokens"] = record.estimated_tokens
    if record.counted_by:
        fields["counted_by"] = record.counted_by
        fields["input_tokens"] = record.input_tokens
        fields["output_tokens"] = record.output_tokens
        if record.cached_tokens:
            fields["cached_tokens"] = record.cached_tokens
        if record.reasoning_tokens:
            fields["reasoning_tokens"] = record.reasoning_tokens


def _add_sizes(fields: dict[str, Any], record: RequestRecord) -> None:
    fields["request_bytes"] = record.request_bytes
    fields["response_bytes"] = record.response_bytes
    if record.streamed:
        fields["streamed"] = True
        fields["chunks"] = record.chunks


def _add_times(fields: dict[str, Any], record: RequestRecord) -> None:
    start_s, reserved_s = record.started_s, record.reserved_s
    if reserved_s:
        fields["admission_ms"] = round((reserved_s - start_s) * 1000, 3)
        if record.forwarded_s:
            fields["upstream_ms"] = round((record.forwarded_s - reserved_s) * 1000, 3)
    if record.first_byte_s:
        fields["first_byte_ms"] = round((record.first_byte_s - start_s) * 1000, 3)
    fields["duration_ms"] = round((record.ended_s - start_s) * 1000, 3)


def _from_outside(text: str) -> str:
    return redact(text[:_TEXT_CHARS])
