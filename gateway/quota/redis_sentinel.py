"""Which server Sentinel calls the master of a service, asked anew at every connection.

Promises: one sentinel that answers is enough; each question begins with another sentinel, so that one that knows only
yesterday's master is not believed twice. Fails with Fault(LIMITER_UNAVAILABLE) that tells what each of them said.
"""

from dataclasses import replace

from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.redis_address import RedisAddress, SentinelPlace
from gateway.quota.resp import RedisError, RedisLink


class Sentinels:
    """The sentinels of one place; each is given `timeout_s` to connect and to answer."""

    def __init__(self, place: SentinelPlace, timeout_s: float) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._first = 0

    async def master(self) -> RedisAddress:
        """Where the master is now, by the first sentinel that knows one."""
        sentinels = self._place.sentinels
        self._first = (self._first + 1) % len(sentinels)
        said: list[str] = []
        for sentinel in sentinels[self._first :] + sentinels[: self._first]:
            try:
                return await self._ask(sentinel)
            except (Fault, RedisError) as error:
                said.append(error.internal if isinstance(error, Fault) else f"sentinel {sentinel}: {error}")
        raise Fault(LIMITER_UNAVAILABLE, f"no sentinel names a master: {'; '.join(said)}")

    async def _ask(self, sentinel: RedisAddress) -> RedisAddress:
        service = self._place.service
        link = RedisLink(sentinel, timeout_s=self._timeout_s)
        try:
            await link.open()
            answer = await link.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        finally:
            await link.close()
        if not answer:
            raise Fault(LIMITER_UNAVAILABLE, f"sentinel {sentinel} knows no service {service!r}")
        host, port = answer
        return replace(self._place.server, host=host.decode(), port=int(port))
