"""One segment of the journal as bytes: entries, each in a frame of length and checksum, one after the other.

Promises: whatever is in a file, reading it yields the entries before the first byte that is wrong, and never raises:
a tail torn by a kill or a loss of power is cut, everything before it is whole. A frame that is whole, and holds what
this version can't read, is passed over.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from zlib import crc32

import msgspec

from gateway.quota.hold import Charge

_HEAD = struct.Struct("<II")
"""Length of the entry, CRC-32 of it."""

LONGEST_BYTES = 1024 * 1024


class Kind(IntEnum):
    """What an entry tells of its request."""

    ADMITTED = 0
    """Admitted by this process alone. Should nothing follow, its event is that of a request whose gateway died."""
    SETTLED = 1
    """Its usage. The limiter was never told."""
    REPEATED = 2
    """Its usage. The limiter admitted it, and may have been told."""


class JournalEntry(msgspec.Struct, frozen=True, array_like=True):
    """`amounts` are limit name, window start (Unix s) and amount; `event` is packed, empty where nothing ran.

    `era` is the limiter's as it was known when the request was admitted, empty for unknown. New fields come last, with
    a default: a journal outlives an upgrade.
    """

    kind: Kind
    request_id: str
    account_id: str
    admitted_ms: int
    amounts: tuple[Charge, ...]
    event: bytes
    era: str = ""


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(JournalEntry).decode


def framed(entry: JournalEntry) -> bytes:
    """The entry as it stands in a segment."""
    packed = _pack(entry)
    return _HEAD.pack(len(packed), crc32(packed)) + packed


def entries(data: bytes) -> Iterator[tuple[int, JournalEntry | None]]:
    """Where each whole frame from the front ends, and its entry; None for one that can't be read."""
    at = 0
    while at + _HEAD.size <= len(data):
        length, check = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        packed = data[at : at + length]
        # Zeros, as a file system leaves at the end of a file after a loss of power, are a frame of nothing.
        if not 0 < length <= LONGEST_BYTES or len(packed) < length or crc32(packed) != check:
            return
        at += length
        try:
            yield at, _unpack(packed)
        except msgspec.MsgspecError:
            yield at, None
