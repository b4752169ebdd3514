"""`tollway` with clocks that the chaos driver sets: run as a program, in place of `python -m gateway`.

The file named by TOLLWAY_CHAOS_CLOCK holds two signed 64-bit numbers of µs, shared by every process of the tree: what
the limiter's clock (Redis TIME) is ahead by, and what the gateway's own wall clock is.
"""

import functools
import mmap
import os
import struct
import sys
import time
from pathlib import Path

import gateway.app
from gateway.__main__ import main
from gateway.quota.redis_limiter import RedisLimiter

PLACES = struct.Struct("<qq")
_real_ns = time.time_ns


def _shared() -> mmap.mmap:
    with Path(os.environ["TOLLWAY_CHAOS_CLOCK"]).open("r+b") as file:
        return mmap.mmap(file.fileno(), PLACES.size)


def _skew(places: mmap.mmap) -> None:
    def limiter_us() -> int:
        return _real_ns() // 1000 + int(PLACES.unpack(places)[0])

    def time_ns() -> int:
        return _real_ns() + int(PLACES.unpack(places)[1]) * 1000

    vars(gateway.app)["RedisLimiter"] = functools.partial(RedisLimiter, now_us=limiter_us)
    vars(time)["time_ns"] = time_ns


if __name__ == "__main__":
    _skew(_shared())
    sys.exit(main())
