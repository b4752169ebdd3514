"""How much usage waits for the ledger, against the most that may: where new requests are to wait too.

Promises: what runs is never touched, so that nothing is lost; admission reads one attribute. The state changes only by
what the stream said: while it can't be asked, the last word stands. Each level is told once and ends a tenth of the
maximum below where it began, so that a backlog that hovers does not flap.
"""

from gateway.telemetry.log import log

HIGH, FULL, FALLS_BY = 0.5, 1.0, 0.1
"""Shares of the maximum."""


class Backlog:
    """One worker's sight of the backlog, in events. `full`: nothing new is to be admitted now."""

    def __init__(self, max_events: int) -> None:
        self.events = 0
        self.full = False
        self.max_events = max_events
        self._high = False

    def saw(self, events: int) -> None:
        """Take in how many events are on the stream now."""
        self.events = events
        high, full = self._is(HIGH, begun=self._high), self._is(FULL, begun=self.full)
        if high and not self._high:
            log.warning("usage_backlog_high", events=events, maximum=self.max_events)
        if full and not self.full:
            log.error("usage_backlog_full", events=events, maximum=self.max_events)
        if self.full and not full:
            log.warning("usage_backlog_falls", events=events, maximum=self.max_events)
        self._high, self.full = high, full

    def _is(self, share: float, *, begun: bool) -> bool:
        return self.events >= self.max_events * (share - FALLS_BY if begun else share)
