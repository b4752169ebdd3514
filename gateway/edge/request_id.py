"""Names for requests: unique, rising with time, not to be guessed."""

import os
import time

RANDOM_BYTES = 8
IDS_AT_ONCE = 256

_pool: list[bytes] = []
"""Random bytes for the next ids: one call to the kernel for many. Empty at a fork, as nothing is named before it."""


def new_request_id() -> str:
    """Milliseconds, then 64 random bits, in hexadecimal: the ledger's index grows at its end, as ids do."""
    if not _pool:
        noise = os.urandom(RANDOM_BYTES * IDS_AT_ONCE)
        _pool.extend(noise[at : at + RANDOM_BYTES] for at in range(0, len(noise), RANDOM_BYTES))
    return f"{time.time_ns() // 1_000_000:012x}{_pool.pop().hex()}"
