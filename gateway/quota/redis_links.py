"""The link that a Redis URL means: to one server, to whichever server Sentinel calls the master, or to a Cluster.

Decided once, at the start; both kinds of link have one face, and fail alike: Fault(LIMITER_UNAVAILABLE) where no answer
came, RedisError where the answer is an error.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from gateway.quota.redis_address import ClusterPlace, SentinelPlace, place_of
from gateway.quota.redis_cluster import ClusterLink
from gateway.quota.redis_sentinel import Sentinels
from gateway.quota.resp import RedisLink, Word


class Link(Protocol):
    """What calls Redis: `RedisLink` or `ClusterLink`."""

    apart: bool
    """Whether one script run can carry the keys of one partition only."""

    @property
    def connected(self) -> bool:
        """Whether every call would be sent now."""
        ...

    @property
    def timeouts(self) -> int:
        """Calls that were not answered in time."""
        ...

    async def open(self) -> None:
        """Connect. Raises Fault(LIMITER_UNAVAILABLE) where that fails, and goes on trying."""
        ...

    def call(self, *words: Word) -> "asyncio.Future[Any]":
        """Send one command; the future holds its reply: bytes, int, None or a list of these."""
        ...

    def evaluate(self, sha: str, text: bytes, words: Sequence[Word]) -> "asyncio.Future[Any]":
        """Run a script by its digest, or by its text where the server doesn't know it; `words` are those after it."""
        ...

    async def close(self) -> None:
        """Send what is queued, fail what is pending, and stay closed. May be called again."""
        ...


def link_of(
    url: str, *, timeout_s: float, client_name: str = "tollway", at_connect: Sequence[tuple[Word, ...]] = ()
) -> Link:
    """The unopened link that a URL (see `redis_address`) means. Raises ValueError for one that can't be understood."""
    place = place_of(url)
    if isinstance(place, ClusterPlace):
        return ClusterLink(place, timeout_s=timeout_s, client_name=client_name, at_connect=at_connect)
    if isinstance(place, SentinelPlace):
        find = Sentinels(place, timeout_s).master
        return RedisLink(place.server, timeout_s=timeout_s, client_name=client_name, at_connect=at_connect, find=find)
    return RedisLink(place, timeout_s=timeout_s, client_name=client_name, at_connect=at_connect)
