"""A lease on Redis: of all gateways, one at a time has it, for as long as it renews it in time."""

import asyncio

from gateway.quota.redis_links import Link


class Lease:
    """The lease under one key, over an open link. Fails as the link's calls do."""

    def __init__(self, link: Link, key: str) -> None:
        self._link = link
        self._key = key

    async def take(self, owner: str, lease_ms: int) -> bool:
        """Take or renew it; whether `owner` has it now, for `lease_ms`."""
        taken, holder = await asyncio.gather(
            self._link.call("SET", self._key, owner, "NX", "PX", lease_ms), self._link.call("GET", self._key)
        )
        if taken is not None or holder != owner.encode():
            return taken is not None
        # The lease may end between any two calls, so only a look after the renewal proves whose was renewed.
        _, holder = await asyncio.gather(
            self._link.call("PEXPIRE", self._key, lease_ms), self._link.call("GET", self._key)
        )
        return bool(holder == owner.encode())
