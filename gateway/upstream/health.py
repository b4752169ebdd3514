"""Whether a target is fit to be asked: a breaker for one that fails, a rest for one that said "later".

Promises: while it is open nothing is sent; when its pause is over one request goes as a probe, the rest elsewhere;
pauses grow and are jittered, so that a fleet doesn't come back as one. Costs no timer. Moments are seconds of `clock`.
"""

import random
import time
from collections.abc import Callable

from gateway.telemetry.log import log

USUAL_REST_S = 5.0
"""After a 429 that doesn't say for how long."""


class Health:
    """Opens after `failures` in a row, for `first_pause_s` doubled each time up to `longest_pause_s`.

    `longest_rest_s` bounds what a `Retry-After` can ask for.
    """

    __slots__ = (
        "_clock",
        "_failures",
        "_first_pause_s",
        "_jitter",
        "_longest_pause_s",
        "_longest_rest_s",
        "_most",
        "_name",
        "_open_until_s",
        "_opened",
        "_probing",
        "_rest_until_s",
        "detail",
        "told_until_s",
    )

    def __init__(
        self,
        name: str,
        *,
        failures: int,
        first_pause_s: float,
        longest_pause_s: float,
        longest_rest_s: float,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._name, self._most = name, failures
        self._first_pause_s, self._longest_pause_s = first_pause_s, longest_pause_s
        self._longest_rest_s = longest_rest_s
        self._clock, self._jitter = clock, jitter
        self._failures = self._opened = 0
        self._open_until_s = self._rest_until_s = 0.0
        self._probing = False
        self.told_until_s = 0.0
        """When the upstream's own rate limit said that it ends: at or after the end of the rest."""
        self.detail = ""
        """What it did last that made it unfit."""

    @property
    def is_open(self) -> bool:
        """It failed, and no probe has succeeded since."""
        return self._opened > 0

    @property
    def rests(self) -> bool:
        """It said "later", and later isn't yet."""
        return self._rest_until_s > self._clock()

    @property
    def is_fit(self) -> bool:
        """It may be asked now."""
        now_s = self._clock()
        if self._rest_until_s > now_s:
            return False
        return not self._opened or (not self._probing and self._open_until_s <= now_s)

    @property
    def fit_at_s(self) -> float:
        """When it may be asked again, as far as is known."""
        return max(self._rest_until_s, self._open_until_s if self._opened else 0.0)

    def begin(self) -> bool:
        """A request goes to it; whether as the probe. Its end has to be told: `succeed`, `fail` or `abandon`."""
        if self._opened:
            self._probing = True
            return True
        return False

    def succeed(self, *, probe: bool) -> None:
        """It answered. While it is open only the probe's answer counts."""
        if probe and self._opened:
            self._close()
        elif not self._opened:
            self._failures = 0

    def fail(self, detail: str, *, probe: bool) -> None:
        """It gave no answer, or one that says that it is ill."""
        self.detail = detail
        if probe and self._opened:
            self._probing = False
            self._open()
        elif not self._opened:
            self._failures += 1
            if self._failures >= self._most:
                self._open()

    def abandon(self, *, probe: bool) -> None:
        """Nothing was learned: the caller left."""
        if probe:
            self._probing = False

    def rest(self, told_s: float | None, detail: str) -> None:
        """It said "later": in `told_s`, where it said when."""
        now_s = self._clock()
        wait_s = USUAL_REST_S if told_s is None else told_s
        self.detail = detail
        self._rest_until_s = max(self._rest_until_s, now_s + min(wait_s, self._longest_rest_s))
        self.told_until_s = max(self.told_until_s, now_s + wait_s)

    def checked(self, detail: str) -> None:
        """What a health check found: "" where it is well, which closes the breaker without a caller's request."""
        if detail:
            self.detail = detail
            self._failures += 1
            if self._failures >= self._most:
                self._open()
        elif self._opened:
            self._close()
        else:
            self._failures = 0

    def _open(self) -> None:
        if not self._opened:
            log.warning("target_opened", target=self._name, detail=self.detail)
        longest_s = min(self._first_pause_s * 2**self._opened, self._longest_pause_s)
        self._opened = min(self._opened + 1, 32)
        self._open_until_s = self._clock() + self._jitter(longest_s / 2, longest_s)

    def _close(self) -> None:
        log.warning("target_closed", target=self._name, openings=self._opened)
        self._opened = self._failures = 0
        self._probing = False
