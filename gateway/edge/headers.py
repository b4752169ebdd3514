"""Which header fields cross the gateway.

Promises: a caller's credential never goes upstream, an upstream's never comes down; hop-by-hop fields (RFC 9110 §7.6.1)
end here; nobody outside can claim to have been forwarded.
"""

from gateway.upstream.target import Target
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

OTHER_KEYS = frozenset({b"x-api-key", b"api-key", b"x-goog-api-key"})
CREDENTIALS = OTHER_KEYS | {b"authorization"}

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
    """The API key that a request presents: a bearer token, else the last of `OTHER_KEYS`."""
    other = None
    for name, value in headers:
        if name == b"authorization":
            if value[:7].lower() == b"bearer ":
                return value[7:].strip()
        elif name in OTHER_KEYS:
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

    Cookies of an upstream that knows the gateway by a key belong to the gateway, not to one caller. A redirect to the
    upstream itself leads back through the gateway: its address is nobody's business.
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
        elif name == b"location" and target.address and field[1].startswith(target.address + b"/"):
            out.append((name, field[1][len(target.address) :]))
        elif keep_cookies or name != b"set-cookie":
            out.append(field)
    return out
