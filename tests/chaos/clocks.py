"""The two clocks of a tree under test, set from outside through a file that its processes map."""

import mmap
import time
from pathlib import Path

from tests.chaos.skewed import PLACES


class Clocks:
    """How far the limiter's clock and the gateway's own are ahead, in µs."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(bytes(PLACES.size))
        self.file = file
        with file.open("r+b") as opened:
            self._places = mmap.mmap(opened.fileno(), PLACES.size)

    @property
    def limiter_us(self) -> int:
        """How far Redis TIME, as the scripts are told it, is ahead."""
        return int(PLACES.unpack(self._places)[0])

    @property
    def own_us(self) -> int:
        """How far the gateway's own wall clock is ahead."""
        return int(PLACES.unpack(self._places)[1])

    def put(self, limiter_us: int, own_us: int) -> None:
        """Set both; every process sees it at once."""
        self._places[:] = PLACES.pack(limiter_us, own_us)

    def before_the_minute(self, left_s: float) -> None:
        """Set the limiter's clock to `left_s` before a full minute."""
        now_us = time.time_ns() // 1000
        self.put(60_000_000 - int(left_s * 1_000_000) - now_us % 60_000_000, self.own_us)

    def jump(self, limiter_us: int = 0, own_us: int = 0) -> None:
        """Move them by so much."""
        self.put(self.limiter_us + limiter_us, self.own_us + own_us)
