"""Puts another model's name into a request, and leaves every other byte as it came.

In a body of JSON the name is the value of `model` at the top, wherever it is given twice, however its key is spelt
with escapes; in Google's API a segment of the path. A form (`multipart/form-data`) passes unchanged. Fails with
Fault(INVALID_BODY).
"""

import json
import re
from collections.abc import Iterator
from urllib.parse import quote

import msgspec

from gateway.dialects.json_body import UNREADABLE, invalid

_BLANK = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder(strict=False, parse_int=str, parse_float=str).raw_decode


def renamed_in_body(body: bytes, model: str) -> bytes:
    """A JSON object whose `model` is `model`, where it has one."""
    if not body or body.startswith(b"--"):
        return body
    try:
        text = body.decode()
        spans = list(_models(text))
    except (*UNREADABLE, ValueError, IndexError) as error:
        raise invalid(error) from None
    name = msgspec.json.encode(model).decode()
    for start, end in reversed(spans):
        text = f"{text[:start]}{name}{text[end:]}"
    return text.encode()


def renamed_in_path(path: bytes, model: str) -> bytes:
    """A path of Google's API (`…/models/NAME:action`, with its query) that names `model`."""
    way, mark, query = path.partition(b"?")
    before, slash, segment = way.rpartition(b"/")
    _, colon, action = segment.partition(b":")
    return b"".join((before, slash, quote(model, safe="").encode(), colon, action, mark, query))


def _models(text: str) -> Iterator[tuple[int, int]]:
    """Where the values of `model` at the top of an object begin and end."""
    at = _after_blank(text, 0)
    if text[at : at + 1] != "{":
        return
    at = _after_blank(text, at + 1)
    while text[at] != "}":
        key, at = _decode(text, at)
        at = _after_blank(text, _after_blank(text, at) + 1)
        start = at
        _, at = _decode(text, at)
        if key == "model":
            yield start, at
        at = _after_blank(text, at)
        if text[at] == ",":
            at = _after_blank(text, at + 1)


def _after_blank(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return at if blank is None else blank.end()
