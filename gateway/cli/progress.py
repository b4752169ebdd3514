"""A bar on standard error that shows how far a long command is. Silent where nobody watches."""

import sys
import time

_WIDTH = 30
_INTERVAL_S = 0.2


class Progress:
    """Of `whole` parts of anything; `close` ends the line."""

    def __init__(self, whole: int, what: str) -> None:
        self._whole = max(1, whole)
        self._what = what
        self._begun_s = time.monotonic()
        self._drawn_s = 0.0
        self._shown = sys.stderr.isatty()

    def at(self, part: int, count: int) -> None:
        """`part` of the whole is done; it held `count` of what is counted."""
        now_s = time.monotonic()
        if self._shown and now_s - self._drawn_s >= _INTERVAL_S:
            self._drawn_s = now_s
            self._draw(part, count, now_s)

    def close(self, count: int) -> None:
        """All is done."""
        if self._shown:
            self._draw(self._whole, count, time.monotonic())
            sys.stderr.write("\n")

    def _draw(self, part: int, count: int, now_s: float) -> None:
        done = min(1.0, part / self._whole)
        bar = ("#" * round(done * _WIDTH)).ljust(_WIDTH)
        rate = count / max(0.001, now_s - self._begun_s)
        sys.stderr.write(f"\r[{bar}] {done:4.0%}  {count:,} {self._what}, {rate:,.0f} a second ")
        sys.stderr.flush()
