"""The one record of a request: filled in along the straight line, told once at its end to the log and the metrics.

Holds ids, names, counts and times; never a prompt, an answer, a header or a secret. A field at its default (empty, 0)
means "not known" or "did not happen" and is left out of the log line.
"""

import msgspec


class RequestRecord(msgspec.Struct, gc=False):
    """What became of one request.

    `status` is what the client was sent, 0 where it left before a head was; `upstream_status` what the upstream
    answered. `fault` is a fault's code, `detail` its internal text, `limit` the limit that refused. Bytes are those of
    the bodies. Times are `time.perf_counter()` seconds, 0 for what never came: the request's head was here
    (`started_s`), the limiter had decided (`reserved_s`), the upstream's head was here (`forwarded_s`), the first body
    byte went to the client (`first_byte_s`), all was over (`ended_s`).
    """

    request_id: str = ""
    method: str = ""
    path: str = ""
    route: str = ""
    endpoint: str = ""
    dialect: str = ""
    account_id: str = ""
    key_id: str = ""
    tier: str = ""
    model: str = ""
    upstream: str = ""
    status: int = 0
    outcome: str = ""
    fault: str = ""
    detail: str = ""
    limit: str = ""
    streamed: bool = False
    counted_by: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated_tokens: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    chunks: int = 0
    upstream_status: int = 0
    started_s: float = 0.0
    reserved_s: float = 0.0
    forwarded_s: float = 0.0
    first_byte_s: float = 0.0
    ended_s: float = 0.0
