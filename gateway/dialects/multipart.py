"""Reads the parts of a `multipart/form-data` body (RFC 7578): small fields as text, files by their length alone.

The boundary is taken from the body's own first line, as every client writes it. Never raises: what can't be read has
no parts. One pass over the body, and no copy of a file.
"""

import re
from collections.abc import Iterator

import msgspec

LONGEST_FIELD_BYTES = 64 << 10
"""A longer field without a file name is still a text, told by its length alone."""

_HEAD_BYTES = 4096
_NAME = re.compile(rb'[;\s]name="?([^";\r\n]*)"?', re.IGNORECASE)
_FILE = re.compile(rb"[;\s]filename\*?=", re.IGNORECASE)


class Part(msgspec.Struct, frozen=True, gc=False):
    """One part. `text` is b"" of a file and of a field that is too long."""

    name: str
    is_file: bool
    size_bytes: int
    text: bytes


def parts(body: bytes) -> Iterator[Part]:
    """The parts of the body, in order."""
    line_end = body.find(b"\n", 0, 256)
    boundary = body[:line_end].rstrip(b"\r\n \t")
    if line_end < 0 or not boundary.startswith(b"--") or len(boundary) < 3:
        return
    start = line_end + 1
    while (end := body.find(b"\n" + boundary, start)) >= 0:
        head_end = body.find(b"\r\n\r\n", start, min(end, start + _HEAD_BYTES))
        if head_end >= 0:
            yield _part(body, start, head_end, end)
        start = body.find(b"\n", end + 1 + len(boundary)) + 1
        if start == 0:
            return


def _part(body: bytes, start: int, head_end: int, end: int) -> Part:
    head = body[start:head_end]
    name = _NAME.search(head)
    is_file = _FILE.search(head) is not None
    first, after = head_end + 4, end - 1 if body[end - 1 : end] == b"\r" else end
    size = max(0, after - first)
    text = b"" if is_file or size > LONGEST_FIELD_BYTES else body[first:after]
    return Part(name[1].decode("utf-8", "replace") if name else "", is_file, size, text)
