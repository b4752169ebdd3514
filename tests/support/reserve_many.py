"""One gateway process of many: reserves as fast as it can, and prints how many were admitted.

`python -m tests.support.reserve_many <redis url> <name> <requests> <maximum> <start s>`; used by the limiter's tests.
"""

import asyncio
import sys

from gateway.domain.decisions import Admitted
from gateway.quota.redis_limiter import RedisLimiter
from gateway.quota.resp import RedisLink
from tests.support.limiters import PARTITIONS, asked, line


async def reserve_many(url: str, name: str, requests: int, maximum: int, start_s: int) -> int:
    """Reserve one unit `requests` times, all at once."""
    link = RedisLink(url, timeout_s=10)
    await link.open()
    limiter = RedisLimiter(link, partitions=PARTITIONS)
    hour = line(start_s, maximum, length_s=86_400)
    decisions = await asyncio.gather(*[limiter.reserve(asked(f"{name}-{n}", hour)) for n in range(requests)])
    await link.close()
    return sum(isinstance(decision, Admitted) for decision in decisions)


if __name__ == "__main__":
    url, name, *numbers = sys.argv[1:]
    sys.stdout.write(f"{asyncio.run(reserve_many(url, name, *map(int, numbers)))}\n")
