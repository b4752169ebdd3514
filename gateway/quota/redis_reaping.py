"""Reaping on Redis: holds whose lease ended are found, read, and settled by `lua/reap.lua`.

Promises: where nothing is due, one look a partition, all in one write; at most `PAGE` holds a script run; a hold that
can't be reaped is told once and is in nobody's way. Fails with Fault(LIMITER_UNAVAILABLE).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.hold import charges, read_hold
from gateway.quota.keys import AccountKeys, Keyspace
from gateway.quota.redis_links import Link
from gateway.quota.resp import RedisError, Word
from gateway.quota.scripts import load_script, run
from gateway.telemetry.log import log

PAGE = 64
TOLD = 1000


class RedisReaping:
    """All partitions of `keyspace` over one open link. `now_us` replaces Redis TIME."""

    def __init__(self, link: Link, keyspace: Keyspace, now_us: Callable[[], int] | None) -> None:
        self._link = link
        self._keyspace = keyspace
        self._now_us = now_us
        self._told: set[bytes] = set()

    async def reap(self, clock_offset_ms: int) -> int:
        """See `Limiter.reap`. The offset only finds what may be due: the script goes by the server's own clock."""
        now_us = self._now_us() if self._now_us else time.time_ns() // 1000 + clock_offset_ms * 1000
        try:
            partitions = self._keyspace.everywhere()
            looks = [self._due(keys, now_us, 0) for keys in partitions]
            pages = await asyncio.gather(*looks, return_exceptions=True)
            return await self._reap_pages(partitions, pages, now_us)
        except RedisError as error:
            raise Fault(LIMITER_UNAVAILABLE, f"reap: {error}") from error

    def _due(self, keys: AccountKeys, now_us: int, first: int) -> "asyncio.Future[list[bytes]]":
        return self._link.call("ZRANGEBYSCORE", keys.leases, "-inf", now_us, "LIMIT", first, PAGE)

    async def _reap_pages(
        self, partitions: Sequence[AccountKeys], pages: Sequence[list[bytes] | BaseException], now_us: int
    ) -> int:
        """Reap what each look found. What is out of reach (a shard of a Cluster) is raised once the others are done."""
        reaped, trouble = 0, None
        for keys, page in zip(partitions, pages, strict=True):
            try:
                if isinstance(page, BaseException):
                    raise page
                reaped += await self._reap(keys, now_us, page)
            except (Fault, RedisError) as error:
                trouble = trouble or error
        if trouble is not None:
            raise trouble
        return reaped

    async def _reap(self, keys: AccountKeys, now_us: int, due: list[bytes]) -> int:
        reaped = left = 0
        while due:
            holds = await self._link.call("HMGET", keys.holds, *due)
            done = await self._reap_these(due, holds)
            reaped += done
            left += len(due) - done
            due = await self._due(keys, now_us, left) if len(due) == PAGE else []
        return reaped

    async def _reap_these(self, due: Sequence[bytes], holds: Sequence[bytes | None]) -> int:
        request_ids: list[bytes] = []
        names: list[Word] = []
        words: list[Word] = [0 if self._now_us is None else self._now_us()]
        for request_id, packed in zip(due, holds, strict=True):
            if packed is None:
                continue  # settled since it was found
            try:
                keys, call = self._call(packed)
            except (msgspec.MsgspecError, ValueError) as error:
                self._tell(request_id, str(error))
                continue
            request_ids.append(request_id)
            names += keys
            words += (call, packed)
        if not request_ids:
            return 0
        _, *entries = await run(self._link, load_script("reap"), names, words)
        for request_id, entry in zip(request_ids, entries, strict=True):
            if isinstance(entry, bytes):
                self._tell(request_id, entry.decode(errors="replace"))
        return sum(entry == 1 for entry in entries)

    def _call(self, packed: bytes) -> tuple[tuple[bytes, ...], bytes]:
        hold = read_hold(packed)
        call: list[Any] = [hold.request_id]
        for name, _, amount in charges(hold.lines, hold.about):
            call += (name, amount)
        keys = self._keyspace.of(hold.account_id)
        return (*keys, keys.marker(hold.request_id)), msgspec.msgpack.encode(call)

    def _tell(self, request_id: bytes, detail: str) -> None:
        if request_id not in self._told:
            if len(self._told) >= TOLD:
                self._told.clear()
            self._told.add(request_id)
            log.error("reap_fails", request_id=request_id.decode(errors="replace"), detail=detail)
