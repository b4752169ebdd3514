"""The width and height of a picture, from its first bytes: PNG, GIF, WebP and JPEG. Pure; never raises.

Sources: PNG (W3C) §11.2.2, GIF89a §18, WebP container (VP8X, VP8L, VP8), JPEG (ITU-T T.81) §B.2.2.
"""

import struct

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def size_of(head: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels; None where `head` is of no picture, or ends before it tells."""
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", head, 16)
        elif head.startswith((b"GIF87a", b"GIF89a")):
            width, height = struct.unpack_from("<HH", head, 6)
        elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            width, height = _webp(head)
        elif head.startswith(b"\xff\xd8"):
            width, height = _jpeg(head)
        else:
            return None
    except (struct.error, IndexError):
        return None
    return (width, height) if width and height else None


def _webp(head: bytes) -> tuple[int, int]:
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF


def _jpeg(head: bytes) -> tuple[int, int]:
    at = 2
    while head[at] == 0xFF:
        marker = head[at + 1]
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", head, at + 5)
            return width, height
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    raise IndexError
