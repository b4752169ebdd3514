"""A primary killed under load, in a Cluster and behind Sentinel: the gateway goes on by itself, and counts right."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.keys import Keyspace
from gateway.quota.redis_links import Link, link_of
from gateway.quota.resp import RedisError, RedisLink
from gateway.quota.usage_stream import RedisUsageStream
from tests.support.clusters import Cluster, Node, formed
from tests.support.odd_peer import always, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.sentinels import watched
from tests.support.stand import CHAT, Stand, stand
from tests.support.truth_balance import PROMPT, bearer
from tests.support.until import until
from tests.support.valkey import ValkeyServer

REPLY = http(completion(prompt=9, output=4))
PARTITIONS = 8
ACCOUNTS = 12
LOST_MS = 500
"""How much before a kill a write may be that its replica never got: replication is asynchronous, if prompt."""

TIERS = """
  free: {limits: {requests: {hour: 100000}, tokens: {day: 100000000}}, concurrency: 200, when_unavailable: deny}
"""


@pytest.fixture(scope="module")
def shards() -> Iterator[Cluster]:
    """Three primaries without replicas, whole before each test and after it."""
    with formed(node_timeout_ms=15_000) as cluster:
        yield cluster


@dataclass(slots=True)
class Load:
    """Callers of every account, one request after the other each. What each request came to, oldest first."""

    here: Stand
    keys: dict[str, str] = field(default_factory=dict)
    answered: list[tuple[float, str, int, str]] = field(default_factory=list)
    """When (monotonic seconds), account, status, request id."""

    async def ask(self, account: str) -> int:
        """One request."""
        answer = await self.here.client.post(CHAT, json=PROMPT, headers=bearer(self.keys[account]))
        if answer.status_code != 200:
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "limiter_unavailable"), answer.text
        self.answered.append((time.monotonic(), account, answer.status_code, answer.headers["x-request-id"]))
        return answer.status_code

    async def run(self, account: str, stop: asyncio.Event) -> None:
        """Ask until told to stop."""
        while not stop.is_set():
            await self.ask(account)
            await asyncio.sleep(0.005)

    async def served(self, accounts: set[str]) -> bool:
        """Whether each account is served now."""
        return all([await self.ask(account) == 200 for account in accounts])

    async def settled_but(self, lost_from_s: float, lost_to_s: float) -> list[str]:
        """The answered requests that are not in the ledger, but for those answered in the span that may be lost."""
        missing = []
        for at_s, account, status, request_id in self.answered:
            event = await self.here.ledger.event(request_id)
            if status == 200 and event is None and not lost_from_s <= at_s <= lost_to_s:
                missing.append(f"{account} {request_id} at {at_s}")
            assert event is None or status == 200
            assert event is None or (event.requests, event.input_tokens) == (1, 9)
        return missing


@asynccontextmanager
async def loaded(here: Stand) -> AsyncIterator[Load]:
    """Load while the context lasts; it has begun for every account when it is entered."""
    load = Load(here)
    for number in range(ACCOUNTS):
        load.keys[f"a{number}"] = await here.account(f"a{number}")
    await until(lambda: load.served(set(load.keys)))
    stop = asyncio.Event()
    callers = [asyncio.create_task(load.run(account, stop)) for account in load.keys]
    try:
        yield load
    finally:
        stop.set()
        await asyncio.gather(*callers)


@pytest.mark.timeout(180)
async def test_a_primary_killed_under_load_is_replaced(tmp_path: Path) -> None:
    """A8, D6: its accounts get 503 until the replica is promoted, nobody else notices; then all is as before, and all
    usage is in the ledger once, but for what replication may have lost.
    """  # noqa: D205
    with formed(replicas=True, node_timeout_ms=4000) as cluster:
        async with odd_peer(always(REPLY)) as peer, stand(tmp_path, cluster, peer.port, tiers=TIERS) as here:
            async with loaded(here) as load:
                victim = cluster.owner("tw:flusher")
                hurt = {account for account in load.keys if _owner(cluster, account) is victim}
                assert 0 < len(hurt) < ACCOUNTS
                await asyncio.sleep(0.3)  # for load on every shard
                killed_s = time.monotonic()
                victim.kill()
                await until(lambda: load.served(set(load.keys)), within_s=60)
                back_s = time.monotonic()
                await asyncio.sleep(0.3)  # for load on the promoted replica
            unserved = {account for _, account, status, _ in load.answered if status != 200}
            assert unserved <= hurt
            assert sum(status != 200 for _, _, status, _ in load.answered) > 0
            assert await here.gateway._limiter.drain(30) == 0
            await until(lambda: _flushed(here))
            assert await load.settled_but(killed_s - LOST_MS / 1000, back_s) == []


async def test_a_shard_that_is_away_holds_up_no_others_usage(shards: Cluster) -> None:
    """A shard without a replica that dies takes its own accounts along, and nobody else: all others' usage flows."""
    link = link_of(shards.url, timeout_s=5)
    await link.open()
    stream = RedisUsageStream(link, "tw", PARTITIONS)
    victim = shards.owner("tw:{0}:events")
    others = [part for part in range(PARTITIONS) if shards.owner(f"tw:{{{part}}}:events") is not victim]
    assert len(others) < PARTITIONS
    for partition in range(PARTITIONS):
        await link.call("XADD", f"tw:{{{partition}}}:events", "*", "e", b"%d" % partition)
    victim.kill()
    entries = await stream.read("one", 100)
    assert sorted(int(entry.payload) for entry in entries) == others
    await stream.done(entries)
    with pytest.raises(Fault) as caught:
        await link.call("XLEN", "tw:{0}:events")
    assert caught.value.kind is LIMITER_UNAVAILABLE
    assert not link.connected
    victim.start()
    await until(lambda: _connected(link))
    await until(lambda: _writes(link, "tw:{0}:x"))
    await link.close()


@pytest.mark.timeout(180)
async def test_sentinel_names_the_new_master(tmp_path: Path) -> None:
    """A8, D6: the master dies, sentinel promotes its replica, and the gateway follows by itself: with passwords, in a
    database of its own, past a sentinel that is dead.
    """  # noqa: D205
    with watched(silent_ms=3000) as servers:
        async with odd_peer(always(REPLY)) as peer, stand(tmp_path, servers, peer.port, tiers=TIERS) as here:
            async with loaded(here) as load:
                await asyncio.sleep(0.3)  # for load
                killed_s = time.monotonic()
                servers.servers[0].kill()
                await until(lambda: load.served({"a0"}), within_s=60)
                back_s = time.monotonic()
                await asyncio.sleep(0.3)  # for load on the new master
            assert await here.gateway._limiter.drain(30) == 0
            await until(lambda: _flushed(here))
            assert await load.settled_but(killed_s - LOST_MS / 1000, back_s) == []
            assert "db2:keys" in servers.servers[1].ask("INFO", "keyspace")


@pytest.mark.timeout(180)
async def test_a_demoted_master_is_left() -> None:
    """A planned failover makes the master a replica: the link goes to the new one, and each call it cost is a fault."""
    with watched(silent_ms=30_000) as servers:
        link = link_of(servers.url, timeout_s=5)
        await link.open()
        old, new = servers.servers
        assert await link.call("SET", "k", "v") == b"OK"
        await until(servers.fails_over)
        await until(lambda: _is_replica(old), within_s=60)
        await until(lambda: _writes(link), within_s=60)
        assert await link.call("GET", "k") == b"w"
        assert "role:master" in new.ask("INFO", "replication")
        await link.close()


async def test_a_replica_is_not_taken_for_a_master(valkey: ValkeyServer) -> None:
    """A plain URL that leads to a replica is unavailable, and asked again with pauses, not in a storm."""
    link = RedisLink(valkey.url, timeout_s=5)
    await link.open()
    valkey.call(b"REPLICAOF 127.0.0.1 1")
    try:
        with pytest.raises(Fault, match="READONLY"):
            await link.call("SET", "k", "v")
        assert not link.connected
        began = _connections(valkey)
        for _ in range(50):
            with pytest.raises(Fault):
                await link.call("SET", "k", "v")
            await asyncio.sleep(0.01)
        assert _connections(valkey) - began < 30
    finally:
        valkey.call(b"REPLICAOF NO ONE")
    await until(lambda: _writes(link))
    await link.close()


async def test_a_hung_primary_costs_one_time_out(shards: Cluster) -> None:
    """A node that takes calls and never answers is given up after the time-out, and found again once it wakes."""
    timeout_s = 2
    link = link_of(shards.url, timeout_s=timeout_s)
    await link.open()
    victim = shards.owner("k")
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        for result in await asyncio.gather(*[link.call("GET", "k") for _ in range(50)], return_exceptions=True):
            assert isinstance(result, Fault)
        assert time.monotonic() - began_s < 2 * timeout_s
        assert link.timeouts >= 50
    finally:
        os.kill(victim.pid, signal.SIGCONT)
    await until(lambda: _writes(link))
    await link.close()


def _owner(cluster: Cluster, account: str) -> Node:
    return cluster.owner(Keyspace("tw", PARTITIONS).of(account).holds)


def _connections(server: ValkeyServer) -> int:
    told = server.call(b"INFO stats").decode().partition("total_connections_received:")[2]
    return int(told.split("\r\n")[0])


async def _flushed(here: Stand) -> bool:
    return await here.gateway._stream.backlog() == 0


async def _connected(link: Link) -> bool:
    return link.connected


async def _is_replica(server: Node) -> bool:
    with suppress(OSError):  # it drops its clients as it changes
        return "role:slave" in server.ask("INFO", "replication")
    return False


async def _writes(link: Link, key: str = "k") -> bool:
    try:
        return bool(await link.call("SET", key, "w") == b"OK")
    except (Fault, RedisError):
        return False
