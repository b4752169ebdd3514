"""Faults: errors of our own, of an upstream or of a caller, each with a code, a public text and an internal text.

A refusal by a limit is a decision (`domain/decisions.py`), not a fault. `docs/faults.md` lists every code here with its
meaning and what to check; a test keeps the two equal.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One kind of fault: HTTP status, stable code, OpenAI-style error type, and the text a caller may see.

    `final` says that asking again can't help, though clients would by the status: until somebody mends something, the
    answer stays the same.
    """

    status: int
    code: str
    type: str
    public: str
    final: bool = False


class Fault(Exception):  # noqa: N818  # design.md §1: the word is fault
    """A request that can't be served, with what the caller may know and what only the log may know."""

    def __init__(
        self, kind: FaultKind, internal: str = "", *, public: str = "", retry_after_s: int | None = None
    ) -> None:
        super().__init__(internal or kind.public)
        self.kind = kind
        self.retry_after_s = retry_after_s
        self.public = public or kind.public
        self.internal = internal


_AUTH, _REQUEST, _SERVER = "authentication_error", "invalid_request_error", "server_error"

MISSING_KEY = FaultKind(401, "missing_api_key", _AUTH, "No API key was sent. Send `Authorization: Bearer tw_...`.")
INVALID_KEY = FaultKind(401, "invalid_api_key", _AUTH, "The API key is not known.")
REVOKED_KEY = FaultKind(401, "revoked_api_key", _AUTH, "The API key was revoked.")
EXPIRED_KEY = FaultKind(401, "expired_api_key", _AUTH, "The API key has expired.")
INVALID_TOKEN = FaultKind(401, "invalid_token", _AUTH, "The token is not valid here.")
EXPIRED_TOKEN = FaultKind(401, "expired_token", _AUTH, "The token has expired.")
ROUTE_NOT_IN_KEY = FaultKind(403, "route_not_in_key", "permission_error", "The API key is not for this route.")
MODEL_NOT_IN_KEY = FaultKind(403, "model_not_in_key", "permission_error", "The API key is not for this model.")
TOO_MANY_GUESSES = FaultKind(
    429, "too_many_guesses", _AUTH, "Too many wrong credentials came from this address. Wait before the next."
)
TOO_MANY_KEYS = FaultKind(
    409,
    "too_many_keys",
    _REQUEST,
    "The account has as many keys with limits of their own as it can have. Revoke one.",
    final=True,
)
UNKNOWN_SUBJECT = FaultKind(403, "unknown_subject", "permission_error", "There is no account for this token.")
ISSUER_UNAVAILABLE = FaultKind(503, "issuer_unavailable", _SERVER, "Tokens cannot be checked now. Try again soon.")
SUSPENDED_ACCOUNT = FaultKind(403, "account_suspended", "permission_error", "The account is suspended.")
ROUTE_NOT_IN_TIER = FaultKind(403, "route_not_in_tier", "permission_error", "The account's tier has not this route.")
OUTSIDE_SCHEDULE = FaultKind(403, "outside_schedule", "permission_error", "The route is not open at this time.")
ADMIN_ONLY = FaultKind(403, "admin_only", "permission_error", "This is for the gateway's operators.")
UNKNOWN_TIER = FaultKind(
    503, "unknown_tier", _SERVER, "The account's plan is not configured on this gateway.", final=True
)
UNKNOWN_ROUTE = FaultKind(404, "unknown_route", _REQUEST, "No route of this gateway matches the path.")
METHOD_NOT_ALLOWED = FaultKind(405, "method_not_allowed", _REQUEST, "The route does not take this method.")
INVALID_BODY = FaultKind(400, "invalid_body", _REQUEST, "The request body could not be read.")
UNKNOWN_PARAMETER = FaultKind(400, "unknown_parameter", _REQUEST, "The query holds a parameter that is not known here.")
INVALID_HEADER = FaultKind(400, "invalid_header", _REQUEST, "A header or the path holds characters HTTP forbids.")
BODY_TOO_LARGE = FaultKind(413, "body_too_large", _REQUEST, "The request body is larger than this gateway takes.")
CLIENT_GONE = FaultKind(499, "client_gone", _REQUEST, "The client left before its request was read.")
INVALID_PATH = FaultKind(400, "invalid_path", _REQUEST, "The path leaves its route by encoded dots or slashes.")
INVALID_WEBHOOK = FaultKind(400, "invalid_webhook", _REQUEST, "This was not signed by Stripe just now.")
NOT_FOUND = FaultKind(404, "not_found", _REQUEST, "There is nothing here.")
UNKNOWN_REQUEST = FaultKind(404, "unknown_request", _REQUEST, "Nothing is held under this request id.")
REQUEST_ENDED = FaultKind(409, "request_ended", _REQUEST, "The request of this id has ended.", final=True)
OVER_LIMIT = FaultKind(409, "over_limit", _REQUEST, "The gauge would pass its limit.", final=True)
ALREADY_EXISTS = FaultKind(409, "already_exists", _REQUEST, "There is one of that name already.", final=True)
KEPT_ELSEWHERE = FaultKind(
    409, "kept_elsewhere", _REQUEST, "This is kept by another system: change it there.", final=True
)
LIMITER_UNAVAILABLE = FaultKind(503, "limiter_unavailable", _SERVER, "Limits cannot be checked now. Try again soon.")
LEDGER_UNAVAILABLE = FaultKind(503, "ledger_unavailable", _SERVER, "Accounts cannot be read now. Try again soon.")
LEDGER_BEHIND = FaultKind(503, "ledger_behind", _SERVER, "Too much usage waits to be written down. Try again soon.")
UPSTREAM_REFUSED = FaultKind(502, "upstream_unreachable", _SERVER, "The upstream could not be reached.")
UPSTREAM_BROKEN = FaultKind(502, "upstream_broken", _SERVER, "The upstream's answer was cut short or is not HTTP.")
UPSTREAM_TIMEOUT = FaultKind(504, "upstream_timeout", _SERVER, "The upstream did not answer in time.")
UPSTREAM_DENIED = FaultKind(
    502, "upstream_denied", _SERVER, "The upstream did not accept the gateway's credential.", final=True
)
UPSTREAM_BUSY = FaultKind(503, "upstream_busy", _SERVER, "Too many requests wait for a connection to the upstream.")
MODEL_NOT_ALLOWED = FaultKind(403, "model_not_allowed", "permission_error", "The account's tier has not this model.")
MAX_TOKENS_TOO_LARGE = FaultKind(400, "max_tokens_too_large", _REQUEST, "More output is asked for than the tier gives.")
CONTEXT_TOO_LARGE = FaultKind(400, "context_too_large", _REQUEST, "The input is longer than the tier takes.")
UPSTREAM_DOWN = FaultKind(503, "upstream_down", _SERVER, "The upstream failed lately and is not asked for now.")
UPSTREAM_RATE_LIMITED = FaultKind(
    429, "upstream_rate_limited", _SERVER, "The upstream's own rate limit is reached; no limit of yours is."
)
BAD_REQUEST = FaultKind(400, "bad_request", _REQUEST, "The request is not valid HTTP.")
REQUEST_TIMEOUT = FaultKind(408, "request_timeout", _REQUEST, "The request did not arrive in time.")
TARGET_TOO_LONG = FaultKind(414, "target_too_long", _REQUEST, "The path and query are longer than this gateway takes.")
HEAD_TOO_LARGE = FaultKind(431, "head_too_large", _REQUEST, "The headers are larger than this gateway takes.")
VERSION_NOT_SUPPORTED = FaultKind(
    505, "version_not_supported", _REQUEST, "Speak HTTP/1.1 or HTTP/1.0 here.", final=True
)
TOO_MANY_CONNECTIONS = FaultKind(503, "too_many_connections", _SERVER, "Too many connections are open. Try again soon.")
STRIPE_UNAVAILABLE = FaultKind(503, "stripe_unavailable", _SERVER, "Stripe cannot be asked now. Try again soon.")
INTERNAL = FaultKind(500, "internal_error", _SERVER, "The gateway failed on this request.")
