"""The usage stream on Redis: settled events on their way to the ledger, one stream per partition.

Promises: each event is handed out at least once until it is marked done, to one consumer at a time; what a consumer
read and never finished is handed out again: to its successor of the same name at once, to others `idle_ms` after its
last sign of life. Never blocks the link it shares: the caller polls. Lost streams (a flushed server) are made anew.
Where some partitions are out of reach (a shard of a Cluster), the others go on; where all are, fails as RedisLink.call
does.
"""

import asyncio
import time
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import Any

from gateway.domain.faults import Fault
from gateway.domain.stream import Entry
from gateway.quota.lease import Lease
from gateway.quota.redis_links import Link
from gateway.quota.resp import RedisError, Word

GROUP = "flusher"


class RedisUsageStream:
    """All partitions' streams over one open link. `idle_ms`: after which a consumer is taken for dead."""

    def __init__(self, link: Link, namespace: str, partitions: int, *, idle_ms: int = 3_000) -> None:
        self._link = link
        self._keys = [f"{namespace}:{{{partition}}}:events" for partition in range(partitions)]
        self._lease = Lease(link, f"{namespace}:flusher")
        self._idle_ms = idle_ms
        self._next_claim_s = 0.0
        self._unsure: dict[int, Word] = dict.fromkeys(range(partitions), "0")
        """Partitions and after which id this consumer may have entries unknown to it: each at first, as one of its name
        may have died, and those where an answer was lost."""

    async def read(self, owner: str, at_most: int) -> list[Entry]:
        """Up to `at_most` entries for this consumer: those of dead consumers first, then new ones."""
        entries = await self._claim(owner, at_most) if time.monotonic() >= self._next_claim_s else []
        # Every partition gets an equal share; what quiet ones leave goes to the busy ones.
        busy = list(range(len(self._keys)))
        while busy and len(entries) < at_most:
            room = at_most - len(entries)
            share = max(1, room // len(busy))
            asked, busy = busy[:room], busy[room:]
            try:
                found = await _reached([self._read_new(partition, owner, share) for partition in asked])
            except (Fault, RedisError):
                if entries:
                    break
                raise
            for partition, group in zip(asked, found, strict=True):
                entries += group or []
                if group is not None and len(group) == share:
                    busy.append(partition)
        return entries

    async def keep(self, owner: str, entries: Sequence[Entry]) -> None:
        """Tell that the owner of these entries lives. Never fails: untold, they may be handed out twice."""
        groups = groupby(sorted(entries, key=attrgetter("partition")), attrgetter("partition"))
        with suppress(Fault, RedisError):
            await _reached([self._touch(partition, owner, [one.id for one in group]) for partition, group in groups])

    async def done(self, entries: Sequence[Entry]) -> bool:
        """Delete entries that are in the ledger; whether all were there. Those out of reach are read again."""
        groups = groupby(sorted(entries, key=attrgetter("partition")), attrgetter("partition"))
        whole = await _reached([self._delete(partition, [entry.id for entry in group]) for partition, group in groups])
        return False not in whole

    async def lead(self, owner: str, lease_ms: int) -> bool:
        """Take or renew the one lease to flush; whether `owner` has it now, for `lease_ms`."""
        return await self._lease.take(owner, lease_ms)

    async def backlog(self) -> int:
        """Events that are not in the ledger yet, over all partitions."""
        return sum(await asyncio.gather(*[self._link.call("XLEN", key) for key in self._keys]))

    async def oldest_ms(self) -> int | None:
        """When the oldest event that is not in the ledger yet was settled: Unix ms by Redis; None without any."""
        calls = [self._link.call("XRANGE", key, "-", "+", "COUNT", 1) for key in self._keys]
        return min(
            (int(entry[0][0].partition(b"-")[0]) for entry in await asyncio.gather(*calls) if entry), default=None
        )

    async def _claim(self, owner: str, at_most: int) -> list[Entry]:
        """Entries of consumers that are idle too long; looked for a few times within that span."""
        entries: list[Entry] = []
        for partition in range(len(self._keys)):
            if len(entries) < at_most:
                with suppress(Fault, RedisError):  # the look for new entries tells whether all are out of reach
                    await self._claim_from(partition, owner, at_most, entries)
        if len(entries) < at_most:
            self._next_claim_s = time.monotonic() + self._idle_ms / 6000
        return entries

    async def _claim_from(self, partition: int, owner: str, at_most: int, entries: list[Entry]) -> None:
        cursor: Word = "0-0"
        while len(entries) < at_most:
            span: tuple[Word, ...] = (self._idle_ms, cursor, "COUNT", at_most - len(entries))
            cursor, found, *_ = await self._grouped(
                partition, ("XAUTOCLAIM", self._keys[partition], GROUP, owner, *span)
            )
            entries += _entries(partition, found)
            if cursor == b"0-0":
                break

    async def _touch(self, partition: int, owner: str, ids: list[bytes]) -> None:
        await self._link.call("XCLAIM", self._keys[partition], GROUP, owner, 0, *ids, "JUSTID")

    async def _delete(self, partition: int, ids: list[bytes]) -> bool:
        key = self._keys[partition]
        try:
            # Deleted first: an entry acknowledged but not deleted would stay for ever, the reverse is tidied by Redis.
            deleted, _ = await asyncio.gather(
                self._link.call("XDEL", key, *ids), self._link.call("XACK", key, GROUP, *ids)
            )
        except Fault:
            self._unsure[partition] = "0"
            raise
        return bool(deleted == len(ids))

    async def _read_new(self, partition: int, owner: str, at_most: int) -> list[Entry]:
        """New entries; first those that were given to this consumer in an answer that was lost."""
        given: list[Entry] = []
        if partition in self._unsure:
            given = await self._read_from(self._unsure[partition], partition, owner, at_most)
            if len(given) == at_most:
                self._unsure[partition] = given[-1].id
                return given
            del self._unsure[partition]
        return given + await self._read_from(">", partition, owner, at_most - len(given))

    async def _read_from(self, begin: Word, partition: int, owner: str, at_most: int) -> list[Entry]:
        span = "COUNT", at_most, "STREAMS", self._keys[partition], begin
        try:
            reply = await self._grouped(partition, ("XREADGROUP", "GROUP", GROUP, owner, *span))
        except Fault:
            self._unsure[partition] = "0"
            raise
        return _entries(partition, reply[0][1]) if reply else []

    async def _grouped(self, partition: int, words: tuple[Word, ...]) -> Any:
        """The reply to a call that needs the consumer group, which is made where it lacks."""
        try:
            return await self._link.call(*words)
        except RedisError as error:
            if error.code != "NOGROUP":
                raise
        try:
            await self._link.call("XGROUP", "CREATE", self._keys[partition], GROUP, "0", "MKSTREAM")
        except RedisError as error:
            if error.code != "BUSYGROUP":
                raise
        return await self._link.call(*words)


async def _reached(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """The replies, None in place of those out of reach. Raises where all are."""
    replies = await asyncio.gather(*calls, return_exceptions=True)
    troubles = [reply for reply in replies if isinstance(reply, BaseException)]
    for trouble in troubles:
        if len(troubles) == len(replies) or not isinstance(trouble, Fault | RedisError):
            raise trouble
    return [None if isinstance(reply, BaseException) else reply for reply in replies]


def _entries(partition: int, found: list[Any]) -> list[Entry]:
    """Entries of a reply, [id, [b"e", payload]] each. Servers before Redis 7 list deleted ones as None in a claim."""
    return [Entry(partition, item[0], item[1][1]) for item in found if item is not None and item[1] is not None]
