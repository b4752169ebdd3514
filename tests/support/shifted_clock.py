"""The limiter's clock, running but set to a chosen place in its window, so that no test waits for a window's end."""

import functools
import time

import pytest

from gateway.quota.redis_limiter import RedisLimiter


class ShiftedClock:
    """Runs as fast as the real one, and apart from it by what `put` set."""

    def __init__(self) -> None:
        self._shift_us = 0
        self._stopped_us: int | None = None

    def __call__(self) -> int:
        """Unix µs."""
        return self._unshifted_us + self._shift_us

    def stop(self) -> None:
        """Stand still from now on, but for `move`."""
        self._stopped_us = time.time_ns() // 1000

    @property
    def _unshifted_us(self) -> int:
        return time.time_ns() // 1000 if self._stopped_us is None else self._stopped_us

    @property
    def now_ms(self) -> int:
        """Unix milliseconds."""
        return self() // 1000

    def put(self, *, window_s: int, left_s: float) -> None:
        """Set it to `left_s` before the end of the UTC window of `window_s` that holds now."""
        window_us = window_s * 1_000_000
        self._shift_us = window_us - int(left_s * 1_000_000) - self._unshifted_us % window_us

    def move(self, seconds: float) -> None:
        """Set it forward, or back."""
        self._shift_us += int(seconds * 1_000_000)


def shifted_clock(monkeypatch: pytest.MonkeyPatch) -> ShiftedClock:
    """The clock of every gateway made from now on in this test."""
    clock = ShiftedClock()
    monkeypatch.setattr("gateway.app.RedisLimiter", functools.partial(RedisLimiter, now_us=clock))
    return clock
