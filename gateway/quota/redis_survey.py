"""A look at what Redis holds, to be compared with the ledger.

Promises: an account's counters and holds are those of one moment. Fails with Fault(LIMITER_UNAVAILABLE).
"""

from collections.abc import Awaitable
from typing import Any

import msgspec

from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.hold import Hold, read_hold
from gateway.quota.keys import Keyspace
from gateway.quota.redis_links import Link
from gateway.quota.resp import RedisError
from gateway.quota.scripts import load_script, run


class Survey(msgspec.Struct, frozen=True):
    """An account at `now_ms` (Redis TIME). `version` None: it has no state. `used` by limit: window start s, count."""

    now_ms: int
    version: int | None
    running: int
    used: dict[str, tuple[int, int]]
    holds: list[Hold]


class RedisSurvey:
    """Over one open link."""

    def __init__(self, link: Link, keyspace: Keyspace) -> None:
        self._link = link
        self._keyspace = keyspace

    async def of(self, account_id: str) -> Survey:
        """The account as it stands."""
        keys = self._keyspace.of(account_id)
        call = run(self._link, load_script("survey"), (keys.account, keys.holds), (account_id, 0))
        now_us, state, packed = await _faulty(call)
        fields = {name.decode(): value for name, value in zip(state[::2], state[1::2], strict=True)}
        used = {
            name[2:]: (int(start_s), int(fields["u:" + name[2:]]))
            for name, start_s in fields.items()
            if name.startswith("s:")
        }
        try:
            holds = [read_hold(each) for each in packed]
        except msgspec.MsgspecError as error:
            raise Fault(LIMITER_UNAVAILABLE, f"a hold of account {account_id} can't be read: {error}") from error
        version = int(fields["v"]) if "v" in fields else None
        return Survey(now_us // 1000, version, int(fields.get("n", 0)), used, holds)

    async def holds_and_leases(self) -> list[tuple[int, int]]:
        """How many of each, for every partition."""
        calls = [
            (self._link.call("HLEN", keys.holds), self._link.call("ZCARD", keys.leases))
            for keys in self._keyspace.everywhere()
        ]
        return [(await _faulty(holds), await _faulty(leases)) for holds, leases in calls]


async def _faulty(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except RedisError as error:
        raise Fault(LIMITER_UNAVAILABLE, f"survey: {error}") from error
