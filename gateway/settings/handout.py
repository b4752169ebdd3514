"""Settings as they go from the supervisor to its workers: every worker has the same, whatever became of the file."""

import msgspec

from gateway.settings.model import Settings


class Handout(msgspec.Struct, frozen=True):
    """One reading of gateway.yaml. `version` counts them from 1, at the start.

    `touched` are the tiers that changed; worker `teller` is to say how many accounts they concern.
    """

    version: int
    settings: Settings
    touched: tuple[str, ...] = ()
    teller: int = -1


_decode = msgspec.msgpack.Decoder(Handout).decode


def pack(handout: Handout) -> bytes:
    """The handout as bytes."""
    return msgspec.msgpack.encode(handout)


def unpack(packed: bytes) -> Handout:
    """What `pack` was given."""
    return _decode(packed)
