"""What the link to a Cluster promises while it is well: each call on its node, few script runs, slots that move."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.domain.decisions import Admitted, Reservation
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.keys import Keyspace
from gateway.quota.redis_cluster import SLOTS, ClusterLink, slot_of
from gateway.quota.redis_limiter import RedisLimiter
from gateway.quota.redis_links import link_of
from gateway.quota.resp import RedisError, RedisLink
from gateway.quota.usage_stream import RedisUsageStream
from tests.support.clusters import Cluster, Node
from tests.support.limiters import ACCOUNT, PARTITIONS, Clock, RedisSubject, asked, counts, hydrate, line, settled
from tests.support.until import until

KEYS = Keyspace("tw", PARTITIONS).of(ACCOUNT)
SLOT = slot_of(KEYS.holds)


@pytest.fixture
async def link(cluster: Cluster) -> AsyncIterator[ClusterLink]:
    """An open link to the worker's empty Cluster."""
    opened = link_of(cluster.url, timeout_s=5)
    assert isinstance(opened, ClusterLink)
    await opened.open()
    assert opened.connected
    yield opened
    await opened.close()


async def test_a_key_has_the_slot_that_the_cluster_gives_it(link: ClusterLink, cluster: Cluster) -> None:
    """Every call goes straight to its node: a wrong slot would cost each one a redirection."""
    for key in ("tw:flusher", "tw:{7}:holds", "tw:{7}:a:{x}", "{}x", "a{", "a{b", "}{a}{b}", "{{a}}", "ä{ö}"):
        assert slot_of(key) == int(cluster.primaries[0].ask("CLUSTER", "KEYSLOT", key)[1:]), key
    assert slot_of(b"123456789") == 0x31C3 % SLOTS  # the check value of the Redis Cluster specification


async def test_calls_of_one_turn_are_one_script_run_for_each_partition(link: ClusterLink) -> None:
    """On a Cluster a script's keys share a slot, and what can leave together does."""
    limiter = RedisLimiter(link, partitions=4)
    accounts = [f"account-{number}" for number in range(60)]
    spread = {limiter._keyspace.of(account).holds for account in accounts}
    decisions = await asyncio.gather(*[limiter.peek(account) for account in accounts])
    assert decisions == [None] * 60
    for account in accounts:
        assert await limiter.hydrate(account, 1, (), int(time.time()) + 999, "")
    before = limiter.script_runs
    replies = await asyncio.gather(
        *[limiter.reserve(Reservation(f"r-{account}", account, 1, ())) for account in accounts]
    )
    assert all(isinstance(reply, Admitted) for reply in replies)
    assert limiter.script_runs - before == len(spread) == 4


async def test_a_slot_that_moved_is_followed(link: ClusterLink, cluster: Cluster) -> None:
    """An operator who balances the Cluster disturbs nobody: calls follow, and later ones know the way (MOVED)."""
    subject = RedisSubject(link, Clock())
    await hydrate(subject)
    source, target = _ends(cluster)
    try:
        _move(source, target, cluster)
        now_s = subject.clock.now_s
        assert isinstance(await subject.limiter.reserve(asked("r1", line(now_s, 9))), Admitted)
        await until(lambda: _leads_to(link, target))
    finally:
        _move(target, source, cluster)
    await subject.limiter.settle(settled(asked("r1", line(now_s, 9)), 1))
    assert await counts(subject) == {"requests/hour": (now_s, 1)}


async def _ask_until(still: asyncio.Event, subject: RedisSubject, now_s: int) -> int:
    """Reserve and settle, one request after the other; how many."""
    answered = 0
    while not still.is_set():
        request = asked(f"r{answered}", line(now_s, 1_000_000))
        assert isinstance(await subject.limiter.reserve(request), Admitted)
        await subject.limiter.settle(settled(request, 1, event=b"e"))
        answered += 1
    return answered


async def test_a_slot_that_is_moving_costs_no_request(
    link: ClusterLink, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a slot's keys are on two nodes, calls wait for them or find them (ASK, TRYAGAIN): none fails, and none is
    counted twice.
    """  # noqa: D205
    subject = RedisSubject(link, Clock())
    await hydrate(subject)
    source, target = _ends(cluster)
    now_s = subject.clock.now_s
    met, link_by = set[str](), link._link_by

    async def noted(slot: int, error: RedisError) -> RedisLink:
        met.add(error.code)
        return await link_by(slot, error)

    monkeypatch.setattr(link, "_link_by", noted)
    still = asyncio.Event()

    async def meets(code: str) -> None:
        async def has_met() -> bool:
            assert not asking.done(), asking
            return code in met

        met.clear()
        await until(has_met, within_s=30)

    asking = asyncio.create_task(_ask_until(still, subject, now_s))
    for begin, end in ((source, target), (target, source)):
        _open(begin, end)
        _migrate(KEYS.account.decode(), begin, end)  # every script names it, and others that stay behind
        await meets("TRYAGAIN")
        while _move_key(begin, end):
            pass
        await meets("ASK")
        _own(end, cluster)
        await until(lambda: _leads_to(link, end), within_s=30)  # noqa: B023  # used up before it changes
    still.set()
    answered = await asyncio.wait_for(asking, 30)
    assert await counts(subject) == {"requests/hour": (now_s, answered)}
    assert await subject.take_events() == [b"e"] * answered


async def test_a_slot_that_nobody_serves_is_unavailable(link: ClusterLink, cluster: Cluster) -> None:
    """A hole in the Cluster fails the calls that fall into it, in time and with its name, and no others."""
    other = next(f"k{n}" for n in range(99) if cluster.owner(f"k{n}") is not cluster.owner(KEYS.holds))
    owner = cluster.owner(KEYS.holds)
    owner.ask("CLUSTER", "DELSLOTS", SLOT)
    try:
        with pytest.raises(RedisError, match="CLUSTERDOWN"):
            await link.call("HGET", KEYS.holds, "x")
        assert await link.call("GET", other) is None
    finally:
        owner.ask("CLUSTER", "ADDSLOTS", SLOT)
    assert await link.call("HGET", KEYS.holds, "x") is None
    assert await link.call("PING") == [b"PONG"] * 3


async def test_an_address_that_is_no_cluster_is_told(tmp_path: Path) -> None:
    """A Cluster's URL for a single server, or for nobody, is a plain text at the start, not a hang."""
    with Node(tmp_path / "single") as single:
        alone = link_of(f"redis+cluster://{single.place}", timeout_s=5)
        with pytest.raises(Fault, match="cluster support disabled") as caught:
            await alone.open()
        assert caught.value.kind is LIMITER_UNAVAILABLE
        await alone.close()
    nowhere = link_of("redis+cluster://:secret@127.0.0.1:1", timeout_s=5)
    with pytest.raises(Fault, match="no node of the Redis Cluster answers") as caught:
        await nowhere.open()
    assert "secret" not in caught.value.internal
    for _ in range(2):
        await nowhere.close()
    with pytest.raises(Fault, match="closed"):
        await nowhere.call("GET", "k")


async def test_one_consumer_leads_on_a_cluster(link: ClusterLink) -> None:
    """The lease to flush belongs to no partition, and has its home all the same."""
    stream = RedisUsageStream(link, "tw", PARTITIONS)
    assert await stream.lead("one", 60_000)
    assert not await stream.lead("two", 60_000)


def _ends(cluster: Cluster) -> tuple[Node, Node]:
    """The account's node, and another."""
    source = cluster.owner(KEYS.holds)
    return source, next(node for node in cluster.primaries if node is not source)


def _open(source: Node, target: Node) -> None:
    """Begin to move the account's slot."""
    target.ask("CLUSTER", "SETSLOT", SLOT, "IMPORTING", source.name)
    source.ask("CLUSTER", "SETSLOT", SLOT, "MIGRATING", target.name)


def _move(source: Node, target: Node, cluster: Cluster) -> None:
    """Move the account's slot, as `valkey-cli --cluster reshard` does."""
    _open(source, target)
    while _move_key(source, target):
        pass
    _own(target, cluster)


def _move_key(source: Node, target: Node) -> bool:
    """Move one key of the slot; whether there was one."""
    keys = source.ask("CLUSTER", "GETKEYSINSLOT", SLOT, 1).split("\r\n")[2:-1]
    if keys:
        _migrate(keys[0], source, target)
    return bool(keys)


def _migrate(key: str, source: Node, target: Node) -> None:
    assert source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000) == "+OK\r\n"


def _own(node: Node, cluster: Cluster) -> None:
    """Tell every node whose the slot is now, the new owner first."""
    name = node.name
    for each in sorted(cluster.nodes, key=lambda one: one is not node):
        each.ask("CLUSTER", "SETSLOT", SLOT, "NODE", name)


async def _leads_to(link: ClusterLink, node: Node) -> bool:
    """Whether the account's calls go straight to the node."""
    straight = link._slots[SLOT]
    return straight is not None and str(straight._address) == node.place
