"""Finds the media inside a JSON body: strings of base64 under `data`, as Anthropic and Gemini send them.

Base64 is not text: it is left out, and each medium priced by a rule of the provider instead. What a string is, is told
by its own first bytes, not by what stands beside it. Only an estimate for admission: what the upstream reports is
charged. Never raises; costs one scan of a body that has no media.
"""

import binascii
import re
from collections.abc import Iterator

import msgspec

from gateway.dialects.picture_size import size_of

_SHORTEST = 64
_HEAD_CHARS = 4096
_LONG_HEAD_CHARS = 128 << 10
"""A JPEG tells its size after its metadata: two segments of 64 KiB at most come before it in any photo."""

_DATA = re.compile(rb'"data"\s*:\s*"')
_BASE64 = re.compile(rb"[A-Za-z0-9+/_\\-]{64}")


class Medium(msgspec.Struct, frozen=True, gc=False):
    """One string of base64. `chars` is its length, `head` its first bytes, `size` width and height of a picture."""

    chars: int
    head: bytes
    size: tuple[int, int] | None

    @property
    def is_picture(self) -> bool:
        """PNG, GIF, JPEG, WebP or HEIC."""
        head = self.head
        known = head.startswith((b"\x89PNG", b"GIF8", b"\xff\xd8\xff")) or head[8:12] == b"WEBP"
        return known or head[4:12] in {b"ftypheic", b"ftypheif", b"ftypmif1"}

    @property
    def is_document(self) -> bool:
        """PDF."""
        return self.head.startswith(b"%PDF")


def media(body: bytes) -> Iterator[Medium]:
    """Every medium of the body, in order."""
    found = _DATA.search(body)
    while found:
        start = found.end()
        end = body.find(b'"', start)
        end = len(body) if end < 0 else end
        if end - start >= _SHORTEST and _BASE64.match(body, start):
            yield _medium(body, start, end)
        found = _DATA.search(body, end)


def _medium(body: bytes, start: int, end: int) -> Medium:
    head = _decoded(body[start : min(end, start + _HEAD_CHARS)])
    size = size_of(head)
    if size is None and head.startswith(b"\xff\xd8"):
        size = size_of(_decoded(body[start : min(end, start + _LONG_HEAD_CHARS)]))
    return Medium(end - start, head[:16], size)


def _decoded(text: bytes) -> bytes:
    plain = text.translate(_URL_SAFE, b"\\")
    try:
        return binascii.a2b_base64(plain[: len(plain) - len(plain) % 4])
    except binascii.Error:
        return b""


_URL_SAFE = bytes.maketrans(b"-_", b"+/")
