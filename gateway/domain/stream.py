"""What travels on the usage stream between settle and the ledger. A pure value, shared by `quota` and `metering`."""

import msgspec


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry of one partition's usage stream: its id there, and a UsageEvent as MessagePack."""

    partition: int
    id: bytes
    payload: bytes
