"""The one record of a request: filled in along the straight line, told once at its end to the metrics and the log.

Holds ids, names, counts and times; never a prompt, an answer, a header or a secret. A field at its default (empty, 0)
means "not known" or "did not happen" and is left out of the log line; the status stands in every one.
"""

import msgspec

NEVER = 0.0
"""The moment of what never came. Always this very object: by that it is known and left out of the line."""


class RequestRecord(msgspec.Struct, gc=False, omit_defaults=True):
    """What became of one request, in the order in which people read its line.

    `status` is what the client was sent, 0 where it left before a head was; `upstream_status` what the upstream
    answered. Where a route has a choice, `target` tells who answered and `attempts` how many were asked. `fault` is a
    fault's code, `detail` its internal text, `limit` the limit that refused. Bytes are those of the bodies.
    `admission_ms` is from the request's head to the limiter's decision, `upstream_ms` from there to the upstream's
    head, `first_byte_ms` and `duration_ms` from the request's head to the first body byte sent and to the end;
    `request_line` works them out of the moments below, which no line shows.

    Moments are `time.perf_counter()` seconds, 0 for what never came: the request's head was here (`started_s`), the
    limiter had decided (`reserved_s`), the upstream's head was here (`forwarded_s`), the first body byte went to the
    client (`first_byte_s`), all was over (`ended_s`).
    """

    request_id: str = ""
    method: str = ""
    path: str = ""
    status: int = msgspec.field(default_factory=int)
    outcome: str = ""
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
    target: str = ""
    attempts: int = 0
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
    admission_ms: float = NEVER
    upstream_ms: float = NEVER
    first_byte_ms: float = NEVER
    duration_ms: float = NEVER
    started_s: float = NEVER
    reserved_s: float = NEVER
    forwarded_s: float = NEVER
    first_byte_s: float = NEVER
    ended_s: float = NEVER
