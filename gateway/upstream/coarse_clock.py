"""The clock of a pool's deadlines: advanced by the pool's sweep, read without a call.

Deadlines so cost one addition per event and no timer per request. They are never early, and late by at most two
sweeps. A turn of the loop that took long counts as two sweeps at most: bytes that wait in the socket behind a stalled
loop must not look like a silent peer.
"""

SWEEP_S = 0.2


class CoarseClock:
    """`now` for comparing, `ahead` for setting deadlines; seconds of no particular epoch."""

    __slots__ = ("_seen", "ahead", "interval_s", "now")

    def __init__(self, monotonic_s: float, shortest_timeout_s: float) -> None:
        self.interval_s = min(SWEEP_S, max(shortest_timeout_s / 4, 0.01))
        self.now = 0.0
        self.ahead = self.interval_s
        self._seen = monotonic_s

    def advance(self, monotonic_s: float) -> None:
        """Called by the sweep, with the loop's own time."""
        self.now += min(monotonic_s - self._seen, 2 * self.interval_s)
        self.ahead = self.now + self.interval_s
        self._seen = monotonic_s
