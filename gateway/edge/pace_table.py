"""When the bytes that accounts were promised will all have left: one table for all workers of a gateway.

Owns memory that processes share by being forked with it. Promises: what one worker notes, the others see at once. There
is no lock, as a worker that is frozen inside one would hold up all: of two that note for one account in the same
microsecond, one note may be lost, which is a slice's worth. An account without a place of its own, where thousands
download at once, shares another's: it is slowed, never let off. Never fails.
"""

import mmap
from hashlib import blake2b

PLACES = 16_384
_PROBES = 16
_WORD_BYTES = 8


class PaceTable:
    """The table; private to this process and what it forks. `free_s` are moments on the monotonic clock, by place."""

    def __init__(self) -> None:
        memory = memoryview(mmap.mmap(-1, 2 * _WORD_BYTES * PLACES))
        self._names = memory[: _WORD_BYTES * PLACES].cast("Q")
        self.free_s = memory[_WORD_BYTES * PLACES :].cast("d")

    def place(self, name: int, now_s: float) -> int:
        """The place of the account of this name. One that has none gets one that nobody's bytes wait for."""
        names, first = self._names, name % (PLACES - _PROBES)
        if names[first] == name:
            return first
        places = range(first, first + _PROBES)
        for place in places:
            if names[place] == name:
                return place
        place = min(places, key=self.free_s.__getitem__)
        if self.free_s[place] <= now_s:
            names[place], self.free_s[place] = name, now_s
        return place


def name_of(account_id: str) -> int:
    """The account's name in the table, never 0."""
    return int.from_bytes(blake2b(account_id.encode(), digest_size=_WORD_BYTES).digest()) or 1
