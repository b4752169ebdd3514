"""Which header fields cross the gateway, and the ones that tell a caller where its limits stand.

Promises: a caller's credential never goes upstream, an upstream's never comes down; hop-by-hop fields (RFC 9110 §7.6.1)
end here; nobody outside can claim to have been forwarded.
"""

from gateway.domain.decisions import Line
from gateway.snapshot import Frame, Target
from gateway.upstream.transport import RawHeaders

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"})

NOT_FORWARDED = (
    HOP_BY_HOP
    | CREDENTIALS
    | {
        b"host",
        b"content-length",
        b"expect",
        b"x-request-id",
        b"forwarded",
        b"via",
        b"x-real-ip",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-forwarded-prefix",
    }
)

NOT_RETURNED = HOP_BY_HOP | {b"content-length", b"server", b"x-request-id", b"alt-svc"}

OURS = (b"ratelimit", b"x-ratelimit", b"anthropic-ratelimit", b"x-tollway-")
"""Prefixes of fields that only the gateway may set: an upstream's own are its account's, not the caller's."""

IDENTITY = (b"accept-encoding", b"identity")


def token_of(headers: RawHeaders) -> bytes | None:
    """The API key that a request presents: a bearer token, or `x-api-key`, or `api-key`."""
    other = None
    for name, value in headers:
        if name == b"authorization":
            if value[:7].lower() == b"bearer ":
                return value[7:].strip()
        elif name in {b"x-api-key", b"api-key"}:
            other = value.strip()
    return other


def forwarded(headers: RawHeaders, target: Target, request_id: bytes, *, plain_answer: bool) -> RawHeaders:
    """The fields that go upstream. `plain_answer` asks for an answer without content coding, to be read in passing."""
    out: RawHeaders = [
        field
        for field in headers
        if field[0] not in NOT_FORWARDED and not (plain_answer and field[0] == b"accept-encoding")
    ]
    for name, value in headers:
        if name == b"connection" and value.lower() not in {b"keep-alive", b"close"}:
            named = {token.strip() for token in value.lower().split(b",")}
            out = [field for field in out if field[0] not in named]
    if plain_answer:
        out.append(IDENTITY)
    if target.credential is not None:
        out.append(target.credential)
    out.append((b"x-request-id", request_id))
    return out


def returned(headers: RawHeaders, target: Target) -> RawHeaders:
    """The fields of an upstream's answer that go down to the caller.

    Cookies of an upstream that knows the gateway by a key belong to the gateway, not to one caller.
    """
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name == b"connection" and value.lower() not in {b"keep-alive", b"close"}:
            named = frozenset(token.strip() for token in value.lower().split(b","))
    keep_cookies = target.credential is None
    out: RawHeaders = []
    for field in headers:
        name = field[0]
        if name in NOT_RETURNED or name in named or name.startswith(OURS):
            if name == b"x-request-id":
                out.append((b"x-upstream-request-id", field[1]))
        elif keep_cookies or name != b"set-cookie":
            out.append(field)
    return out


def limit_headers(frame: Frame, used: tuple[int, ...], now_s: int, *, plain: bool) -> RawHeaders:
    """The caller's limits: `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers, list form), and
    for the tightest limit on requests and on tokens the `x-ratelimit-*` that OpenAI's clients know; on plain routes
    also the bare `x-ratelimit-limit`, `-remaining` and `-reset` (seconds).
    """  # noqa: D205
    lines = frame.lines
    if not lines:
        return []
    left = [max(0, line.maximum - count) for line, count in zip(lines, used, strict=True)]
    states = [
        f"{item}{remaining};t={line.end_s - now_s}"
        for item, remaining, line in zip(frame.items, left, lines, strict=True)
    ]
    headers = [(b"ratelimit-policy", frame.policy), (b"ratelimit", ", ".join(states).encode())]
    for places, names in ((frame.requests, _REQUESTS), (frame.tokens, _TOKENS)):
        if places:
            place = places[0] if len(places) == 1 else min(places, key=left.__getitem__)
            headers += _state(names, left[place], lines[place], now_s, b"s")
    if plain and frame.requests:
        place = min(frame.requests, key=left.__getitem__)
        headers += _state(_PLAIN, left[place], lines[place], now_s, b"")
    return headers


def _state(
    names: tuple[bytes, bytes, bytes], remaining: int, line: Line, now_s: int, suffix: bytes
) -> tuple[tuple[bytes, bytes], ...]:
    limit, left, reset = names
    return (limit, b"%d" % line.maximum), (left, b"%d" % remaining), (reset, b"%d%b" % (line.end_s - now_s, suffix))


_REQUESTS = (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests")
_TOKENS = (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens")
_PLAIN = (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")
