"""The head of an answer and how its body ends, from what the application said (RFC 9112 §6).

Promises: one answer has one framing, and nothing in a field can end the field or the head (CWE-113). The server's own
fields (`connection`, `transfer-encoding`) are never the application's. Raises ValueError.
"""

from collections.abc import Sequence
from http import HTTPStatus

Fields = Sequence[tuple[bytes, bytes]]

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus if status >= 200
}
_SWITCHING = b"HTTP/1.1 101 Switching Protocols"
_LENGTH = b"content-length"
_SERVERS_OWN = frozenset({b"connection", b"transfer-encoding"})
_FRAMING = _SERVERS_OWN | {_LENGTH}
_NO_BODY = frozenset({204, 304})
_field = b": ".join


ResponseHead = tuple[bytes, int | None, bool, bool, bool]
"""The head's bytes; the body's length, None where it is chunked or ends with the connection; whether it is chunked;
whether what is given as body must be dropped; whether the connection may go on after it. Plain, as a class costs."""


def response_head(status: int, fields: Fields, http_version: str, keep: bool, head_only: bool) -> ResponseHead:
    """`fields` have their names in lower case. `keep` is whether the connection may go on after the answer."""
    framing = [field for field in fields if field[0] in _FRAMING]
    no_body = head_only or status in _NO_BODY
    if len(framing) == 1 and keep and not no_body and http_version == "1.1":
        name, value = framing[0]
        if name == _LENGTH and value.isdigit():  # nearly always, and worth being quick
            return _rendered(status, fields, b"\r\n"), int(value), False, False, True
    length, keep = _told(framing, keep)
    dropped = _FRAMING if status == 204 else _SERVERS_OWN
    fields = [field for field in fields if field[0] not in dropped]
    chunked, ending = False, b""
    if length is None and not no_body:
        _check_case(fields)
        if http_version == "1.1":
            chunked, ending = True, b"transfer-encoding: chunked\r\n"
        else:
            keep = False
    if not keep:
        ending += b"connection: close\r\n"
    elif http_version == "1.0":
        ending += b"connection: keep-alive\r\n"
    return _rendered(status, fields, ending + b"\r\n"), length, chunked, no_body, keep


def switching_head(fields: Fields) -> bytes:
    """The head that makes the connection a WebSocket's (RFC 6455 §4.2.2); `fields` lack `connection` and `upgrade`."""
    switching = [*fields, (b"upgrade", b"websocket"), (b"connection", b"Upgrade")]
    return _joined(_SWITCHING, switching, b"\r\n")


def _told(framing: Fields, keep: bool) -> tuple[int | None, bool]:
    """The body's length, None where untold, and whether the connection is kept."""
    length = None
    for name, value in framing:
        if name == _LENGTH:
            if length is not None:
                raise ValueError("content-length is told twice")
            length = _number(value)
        elif name == b"connection" and b"close" in {token.strip() for token in value.lower().split(b",")}:
            keep = False
    return length, keep


def _number(value: bytes) -> int:
    if not value.isdigit():
        raise ValueError("content-length is no number")
    return int(value)


def _check_case(fields: Fields) -> None:
    if any(name != name.lower() for name, _ in fields):
        raise ValueError("ASGI wants the names of fields in lower case")


def _rendered(status: int, fields: Fields, ending: bytes) -> bytes:
    return _joined(_STATUS_LINES.get(status) or _status_line(status), fields, ending)


def _joined(status_line: bytes, fields: Fields, ending: bytes) -> bytes:
    # One join over C iterators: a loop over the fields in Python costs four times as much.
    text = b"\r\n".join([status_line, *map(_field, fields), ending])
    breaks = len(fields) + ending.count(b"\n") + 1
    if text.count(b"\n") != breaks or text.count(b"\r") != breaks or 0 in text:
        raise ValueError("a field of the answer holds CR, LF or NUL")
    return text


def _status_line(status: int) -> bytes:
    if not 200 <= status <= 999:
        raise ValueError(f"{status} is no status of a final answer")
    return b"HTTP/1.1 %d " % status
