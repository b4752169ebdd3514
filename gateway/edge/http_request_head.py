"""A request's head: what the parser leaves unchecked, and what the scope and the framing need of it.

The parser (llhttp, strict) has refused bad tokens, bare LF, folded lines, NUL, and contradictions of length and coding.
Raises Fault: BAD_REQUEST, VERSION_NOT_SUPPORTED, TARGET_TOO_LONG, HEAD_TOO_LARGE.
"""

import re
from functools import lru_cache
from urllib.parse import unquote

from httptools import HttpParserInvalidURLError, HttpRequestParser, parse_url

from gateway.domain.faults import BAD_REQUEST, HEAD_TOO_LARGE, TARGET_TOO_LONG, VERSION_NOT_SUPPORTED, Fault
from gateway.edge.exchange import Scope
from gateway.edge.http_limits import MAX_FIELDS, MAX_TARGET_BYTES
from gateway.upstream.transport import RawHeaders

_NAMES = """
    GET HEAD POST PUT DELETE OPTIONS TRACE PATCH QUERY
    ACL BIND CHECKOUT COPY LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY PROPFIND PROPPATCH
    PURGE REBIND REPORT SEARCH SUBSCRIBE UNBIND UNLINK UNLOCK UNSUBSCRIBE
"""
METHODS = {name.encode(): name for name in _NAMES.split()}
"""HTTP's own among those the parser knows. CONNECT is not served, RTSP's are none of ours."""

_SLASH = 47
_AUTHORITY = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")


Framing = tuple[int | None, bool, bool, bool]
"""The body's length, None where it is chunked; whether the client means to go on after the answer; whether it waits to
be asked for the body; whether it would rather speak another protocol. Plain, as a class costs."""


def read_head(parser: HttpRequestParser, target: bytes, fields: RawHeaders, scope: Scope) -> Framing:
    """The head that `parser` has just ended; what it says goes to `scope`, whose `http_version` is "1.1" before."""
    if len(fields) > MAX_FIELDS:
        raise Fault(HEAD_TOO_LARGE, public=f"The request has more than {MAX_FIELDS} header fields.")
    method = scope["method"] = METHODS.get(parser.get_method())
    if method is None:
        raise bad("this method is not served")
    facts = dict(fields)
    keep = parser.should_keep_alive()
    if not keep or b"connection" in facts:  # else it can only be 1.1; asking costs
        scope["http_version"] = _checked_version(parser)
    host = facts.get(b"host")
    if host is None or len(facts) != len(fields) or not _is_authority(host):
        _check_host(host, fields, scope["http_version"])
    if target[0] != _SLASH:
        target = _odd_target(method, target, fields)
    scope["path"], scope["raw_path"], scope["query_string"] = _split(target)
    scope["headers"] = fields
    if b"transfer-encoding" in facts:
        _check_coding(facts[b"transfer-encoding"], scope["http_version"])
        announced = None
    else:
        announced = int(facts.get(b"content-length", 0))
    expects = b"expect" in facts and _expects(facts[b"expect"], announced, scope["http_version"])
    return announced, keep, expects, b"upgrade" in facts and parser.should_upgrade()


def asks_for_websocket(scope: Scope, announced: int | None) -> bool:
    """Whether a head with the wish to upgrade is a handshake (RFC 6455 §4.1)."""
    facts = dict(scope["headers"])
    kind, key = facts[b"upgrade"].strip().lower(), facts.get(b"sec-websocket-key")
    asks = kind == b"websocket" and key is not None
    return asks and announced == 0 and scope["method"] == "GET" and scope["http_version"] == "1.1"


def without_upgrade(method: bytes, target: bytes, fields: RawHeaders) -> bytes:
    """The same head again, but for its wish to upgrade (RFC 9110 §7.8: a server may ignore it)."""
    lines = [b"%b %b HTTP/1.1" % (method, target)]
    for name, value in fields:
        if name == b"connection":
            kept = [token for token in value.split(b",") if token.strip().lower() != b"upgrade"]
            lines.append(b"connection: " + b",".join(kept))
        elif name != b"upgrade":
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join([*lines, b"", b""])


def bad(reason: str) -> Fault:
    """BAD_REQUEST with the reason in the public text."""
    return Fault(BAD_REQUEST, reason, public=f"The request is not valid HTTP: {reason}.")


def _checked_version(parser: HttpRequestParser) -> str:
    version = parser.get_http_version()
    if version not in {"1.1", "1.0"}:
        raise Fault(VERSION_NOT_SUPPORTED, version)
    return version


@lru_cache(maxsize=256)
def _split(target: bytes) -> tuple[str, bytes, bytes]:
    """The decoded path, the path and the query of a target in origin form."""
    if len(target) > MAX_TARGET_BYTES:
        raise Fault(TARGET_TOO_LONG, public=f"The path and query are longer than {MAX_TARGET_BYTES} bytes.")
    if b"#" in target:
        raise bad("the target holds a fragment")
    raw_path, _, query = target.partition(b"?")
    return unquote(raw_path.decode("ascii")), raw_path, query


def _check_host(host: bytes | None, fields: RawHeaders, http_version: str) -> None:
    """RFC 9112 §3.2."""
    if host is None:
        if http_version == "1.1":
            raise bad("the Host header is missing")
    elif sum(name == b"host" for name, _ in fields) > 1:
        raise bad("there is more than one Host header")
    elif not _is_authority(host):
        raise bad("the Host header is not a host")


@lru_cache(maxsize=256)
def _is_authority(value: bytes) -> bool:
    return _AUTHORITY.fullmatch(value) is not None


def _check_coding(coding: bytes, http_version: str) -> None:
    """RFC 9112 §6.1."""
    if coding.lower() != b"chunked":
        raise bad("the only transfer coding served is chunked")
    if http_version == "1.0":
        raise bad("HTTP/1.0 has no transfer codings")


def _expects(value: bytes, announced: int | None, http_version: str) -> bool:
    """RFC 9110 §10.1.1."""
    return announced != 0 and http_version == "1.1" and value.lower() == b"100-continue"


def _odd_target(method: str, target: bytes, fields: RawHeaders) -> bytes:
    """A target that doesn't start with a slash, in origin form (RFC 9112 §3.2). Its host replaces that of `fields`."""
    if target == b"*" and method == "OPTIONS":
        return target
    try:
        url = parse_url(target)
    except HttpParserInvalidURLError:
        raise bad("the target can't be read") from None
    if url.schema is None or url.schema.lower() not in {b"http", b"https"} or not url.host or url.userinfo:
        raise bad("the target is neither a path nor an http URL")
    authority, slash, rest = target.partition(b"://")[2].partition(b"/")
    authority, mark, query = authority.partition(b"?")
    if mark:
        slash, rest = b"", query + slash + rest
    fields[:] = [field for field in fields if field[0] != b"host"]
    fields.append((b"host", authority))
    return b"/" + (b"?" + rest if mark else rest)
