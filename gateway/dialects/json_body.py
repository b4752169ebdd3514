"""Decodes the JSON body of a request, and says in plain words what is wrong with one.

Fails with Fault(INVALID_BODY), its public text naming the field and what it must be, or why the body is no JSON.
"""

import re
from typing import TypeVar

import msgspec

from gateway.domain.faults import INVALID_BODY, Fault

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises on bytes that aren't the JSON it expects."""

_T = TypeVar("_T")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def without_mark(body: bytes) -> bytes:
    """The body without a byte order mark, which no decoder takes (RFC 8259 §8.1)."""
    return body.removeprefix(_BYTE_ORDER_MARK)


def decode(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    """What `decoder` makes of the body. Raises Fault(INVALID_BODY)."""
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        raise invalid(error) from None


def invalid(error: Exception, inside: str = "") -> Fault:
    """The fault that tells of a decoder's error: which field (below `inside`) must be what, or that it is no JSON."""
    return Fault(INVALID_BODY, str(error), public=_explain(error, inside))


_TYPES = {
    "int": "an integer",
    "bool": "a boolean",
    "str": "a string",
    "object": "an object",
}
_MISTAKE = re.compile(r"Expected `(\w+)[^`]*`.*?(?: - at `\$\.?([^`]*)`)?$")


def _explain(error: Exception, inside: str) -> str:
    text = str(error)
    mistake = _MISTAKE.match(text)
    if mistake:
        path = ".".join(part for part in (inside, mistake[2]) if part)
        return f"{path or 'The request body'} must be {_TYPES.get(mistake[1], mistake[1])}."
    if isinstance(error, msgspec.ValidationError):
        field = text.partition(" - at `$.")[2].rstrip("`")
        return f"{field or 'A number'} is out of range."
    if isinstance(error, RecursionError):
        return "The request body is nested too deeply."
    return f"The request body is not valid JSON: {text.removeprefix('JSON is malformed: ')}."
