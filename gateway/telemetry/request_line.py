"""The log line of one request, made of its record. What is not known, or did not happen, is left out."""

import msgspec

from gateway.telemetry.record import NEVER, RequestRecord
from gateway.telemetry.redaction import redact

_TEXT_CHARS = 256
"""The most that a line repeats of a text from outside."""

_encode = msgspec.json.Encoder(enc_hook=repr).encode


def request_line(record: RequestRecord) -> bytes:
    """The line's fields as JSON, from the opening brace to the closing one. Spends the record: its moments are gone."""
    show(record)
    try:
        return _encode(record)
    except UnicodeEncodeError:  # lone surrogates
        fields = shown(record).items()
        return _encode({name: ascii(value)[1:-1] if isinstance(value, str) else value for name, value in fields})


def shown(record: RequestRecord) -> dict[str, object]:
    """The fields that the line of a record has, once it was made ready by `show`."""
    return {name: value for name, value in msgspec.structs.asdict(record).items() if value or name == "status"}


def show(record: RequestRecord) -> None:
    """Make a record ready to be shown: foreign texts short and without secrets, spans in place of moments."""
    record.method = record.method[:16]
    record.path = _from_outside(record.path.partition("?")[0])
    if record.detail:
        record.detail = _from_outside(record.detail)
    if record.model:
        record.model = _from_outside(record.model)
    start_s, reserved_s, first_byte_s = record.started_s, record.reserved_s, record.first_byte_s
    if reserved_s:
        record.admission_ms = round((reserved_s - start_s) * 1000, 3)
        if record.forwarded_s:
            record.upstream_ms = round((record.forwarded_s - reserved_s) * 1000, 3)
    if first_byte_s:
        record.first_byte_ms = round((first_byte_s - start_s) * 1000, 3)
    record.duration_ms = round((record.ended_s - start_s) * 1000, 3)
    record.started_s = record.reserved_s = record.forwarded_s = record.first_byte_s = record.ended_s = NEVER


def _from_outside(text: str) -> str:
    return redact(text[:_TEXT_CHARS])
