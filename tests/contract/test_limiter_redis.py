"""What the limiter on Redis promises beyond the port: exact over processes, calls that fail alone, state that ends."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

from gateway.domain.decisions import Admitted, Counter, Reservation, Skewed
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.keys import Keyspace
from gateway.quota.redis_limiter import RedisLimiter
from gateway.quota.resp import RedisLink
from tests.support.limiters import (
    ACCOUNT,
    PARTITIONS,
    RedisSubject,
    admit,
    asked,
    counts,
    hydrate,
    line,
    running,
    settled,
)
from tests.support.valkey import ValkeyServer

ROOT = Path(__file__).resolve().parents[2]
KEYS = Keyspace("tw", PARTITIONS).of(ACCOUNT)


async def test_a_thousand_at_once_over_many_links_admit_the_limit(
    redis_subject: RedisSubject, valkey: ValkeyServer
) -> None:
    """Not one request more than the plan allows, and not one less, however many gateways ask at once (B1, D1)."""
    now_s = redis_subject.clock.now_s
    await hydrate(redis_subject)
    links = [RedisLink(valkey.url, timeout_s=10) for _ in range(4)]
    await asyncio.gather(*[link.open() for link in links])
    limiters = [RedisLimiter(link, partitions=PARTITIONS, now_us=redis_subject.clock) for link in links]
    decisions = await asyncio.gather(
        *[limiters[number % 4].reserve(asked(f"r{number}", line(now_s, 137))) for number in range(1000)]
    )
    assert sum(isinstance(decision, Admitted) for decision in decisions) == 137
    assert await counts(redis_subject) == {"requests/hour": (now_s, 137)}
    assert await running(redis_subject) == 137
    await asyncio.gather(*[link.close() for link in links])


async def test_four_processes_admit_the_limit(redis_subject: RedisSubject, valkey: ValkeyServer) -> None:
    """Gateways behind a load balancer share one limit exactly, by the server's own clock (B1, D1)."""
    await hydrate(redis_subject)
    start_s = int(time.time()) - 3600
    processes = [
        await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "tests.support.reserve_many", valkey.url, f"p{number}", "500", "777", str(start_s)],
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(4)
    ]
    outputs = [output for output, _ in await asyncio.gather(*[process.communicate() for process in processes])]
    assert sum(map(int, outputs)) == 777
    assert await counts(redis_subject) == {"requests/hour": (start_s, 777)}


async def test_calls_of_one_turn_are_few_round_trips(redis_subject: RedisSubject) -> None:
    """Requests that wait together cost one script run: it is what makes an atomic decision cheap."""
    await hydrate(redis_subject)
    now_s, before = redis_subject.clock.now_s, redis_subject.limiter.script_runs
    await asyncio.gather(*[redis_subject.limiter.reserve(asked(f"r{n}", line(now_s, 999))) for n in range(100)])
    assert redis_subject.limiter.script_runs - before == 2


async def test_a_bad_call_in_a_batch_fails_alone(redis_subject: RedisSubject, link: RedisLink) -> None:
    """One account with a broken state is that account's trouble: its neighbours in the batch are served."""
    now_s = redis_subject.clock.now_s
    await hydrate(redis_subject)
    broken = next(name for name in (f"broken{n}" for n in range(99)) if _partition(name) == _partition(ACCOUNT))
    await link.call("SET", Keyspace("tw", PARTITIONS).of(broken).account, "not a hash")
    bad = Reservation("bad", broken, 1, (line(now_s, 9),))
    decisions = await asyncio.gather(
        redis_subject.limiter.reserve(asked("r1", line(now_s, 9))),
        redis_subject.limiter.reserve(bad),
        redis_subject.limiter.reserve(asked("r2", line(now_s, 9))),
        return_exceptions=True,
    )
    assert isinstance(decisions[0], Admitted)
    assert isinstance(decisions[2], Admitted)
    assert isinstance(decisions[1], Fault)
    assert decisions[1].kind is LIMITER_UNAVAILABLE
    assert "WRONGTYPE" in decisions[1].internal
    assert await link.call("HEXISTS", KEYS.holds, "bad") == 0


async def test_a_bad_settlement_in_a_batch_leaves_the_others(redis_subject: RedisSubject, link: RedisLink) -> None:
    """A broken state holds up no one else's settlement; its own is taken as soon as the state is mended."""
    now_s = redis_subject.clock.now_s
    await hydrate(redis_subject)
    broken = next(name for name in (f"broken{n}" for n in range(99)) if _partition(name) == _partition(ACCOUNT))
    key = Keyspace("tw", PARTITIONS).of(broken).account
    await link.call("SET", key, "not a hash")
    good = asked("r1", line(now_s, 100, 50))
    await admit(redis_subject, good)
    bad = Reservation("bad", broken, 1, (line(now_s, 9),))
    waiting = redis_subject.limiter.settle(settled(bad, 1, event=b"bad"))
    await redis_subject.limiter.settle(settled(good, 20, event=b"good"))
    assert await counts(redis_subject) == {"requests/hour": (now_s, 20)}
    assert not waiting.done()
    await link.call("DEL", key)
    await asyncio.wait_for(waiting, 10)
    assert await redis_subject.take_events() == [b"good", b"bad"]


async def test_a_script_flush_goes_unnoticed(redis_subject: RedisSubject, link: RedisLink) -> None:
    """A restarted or failed-over server knows no script: requests are decided all the same, none twice."""
    now_s = redis_subject.clock.now_s
    await hydrate(redis_subject)
    requests = [asked(f"r{number}", line(now_s, 1000)) for number in range(100)]
    waiting = [asyncio.ensure_future(redis_subject.limiter.reserve(request)) for request in requests]
    await link.call("SCRIPT", "FLUSH")
    await asyncio.gather(*waiting)
    link.call("SCRIPT", "FLUSH")
    await asyncio.gather(*[redis_subject.limiter.settle(settled(request, 1)) for request in requests])
    assert await counts(redis_subject) == {"requests/hour": (now_s, 100)}
    assert await running(redis_subject) == 0


async def test_scripts_run_where_loading_them_is_forbidden(
    redis_subject: RedisSubject, link: RedisLink, valkey: ValkeyServer
) -> None:
    """Managed servers often forbid SCRIPT: the gateway needs EVALSHA and EVAL alone."""
    await hydrate(redis_subject)
    await link.call("ACL", "SETUSER", "plain", "on", ">secret", "~tw:*", "+@all", "-script", "-@admin")
    await link.call("SCRIPT", "FLUSH")
    plain = RedisLink(valkey.url.replace("unix://", "unix://plain:secret@"), timeout_s=5)
    await plain.open()
    limiter = RedisLimiter(plain, partitions=PARTITIONS, now_us=redis_subject.clock)
    assert isinstance(await limiter.reserve(asked("r1", line(redis_subject.clock.now_s, 9))), Admitted)
    await plain.close()
    await link.call("ACL", "DELUSER", "plain")


async def test_the_servers_own_clock_decides(link: RedisLink) -> None:
    """In production "now" is Redis TIME: gateways whose clocks differ agree on the window."""
    limiter = RedisLimiter(link, partitions=PARTITIONS)
    now_s = int(time.time())
    await limiter.hydrate(ACCOUNT, 1, (Counter("requests/hour", 0, 0),), now_s + 86_400, "")
    assert isinstance(await limiter.reserve(asked("r1", line(now_s - 600, 5))), Admitted)
    late = await limiter.reserve(asked("r2", line(now_s + 600, 5)))
    assert isinstance(late, Skewed)
    assert abs(late.now_ms - time.time() * 1000) < 60_000
    assert abs(limiter.clock_offset_ms) < 60_000


async def test_state_ends_after_its_longest_window(redis_subject: RedisSubject, link: RedisLink) -> None:
    """Accounts that went away leave nothing behind, and no count is dropped while its window runs (C6)."""
    now_s = redis_subject.clock.now_s
    counters = Counter("requests/hour", 0, 0), Counter("requests/month", 0, 0)
    assert await redis_subject.limiter.hydrate(ACCOUNT, 1, counters, now_s + 7200, "")
    assert await link.call("EXPIRETIME", KEYS.account) == now_s + 7200
    month = line(now_s, 9, name="requests/month", length_s=30 * 86_400)
    await admit(redis_subject, asked("r1", line(now_s, 9), month))
    ends_s = now_s + 30 * 86_400 + 86_400
    assert await link.call("EXPIRETIME", KEYS.account) == ends_s
    redis_subject.clock.now_us += 3_600_000_000
    await admit(redis_subject, asked("r2", line(now_s + 3600, 9)))
    assert await link.call("EXPIRETIME", KEYS.account) == ends_s, "a shorter window never shortens the state's life"


async def test_marks_of_unknown_accounts_end(redis_subject: RedisSubject, link: RedisLink) -> None:
    """A late settlement or a bump of an account nobody asks for leaves no key for ever."""
    await redis_subject.limiter.settle(settled(asked("r1"), event=b"late"))
    assert 0 < await link.call("TTL", KEYS.account) <= 86_400
    await link.call("DEL", KEYS.account)
    await redis_subject.limiter.bump(ACCOUNT, 4)
    assert 0 < await link.call("TTL", KEYS.account) <= 86_400


async def test_nothing_stays_once_all_is_settled_and_flushed(redis_subject: RedisSubject, link: RedisLink) -> None:
    """Every key has a TTL or empties by itself: a year of traffic leaves what a day leaves."""
    now_s = redis_subject.clock.now_s
    await hydrate(redis_subject)
    requests = [asked(f"r{number}", line(now_s, 99)) for number in range(20)]
    await asyncio.gather(*[redis_subject.limiter.reserve(request) for request in requests])
    assert await link.call("HLEN", KEYS.holds) == await link.call("ZCARD", KEYS.leases) == 20
    await asyncio.gather(*[redis_subject.limiter.settle(settled(request, 1)) for request in requests])
    await redis_subject.take_events()
    assert await link.call("EXISTS", KEYS.holds, KEYS.leases) == 0
    assert await link.call("XLEN", KEYS.events) == 0
    assert redis_subject.limiter.unsettled == 0


async def test_a_hold_has_its_lease(redis_subject: RedisSubject, link: RedisLink) -> None:
    """Holds of a gateway that died can be found by the time at which their lease ended."""
    await hydrate(redis_subject)
    await admit(redis_subject, asked("r1", line(redis_subject.clock.now_s, 9)))
    assert await link.call("ZSCORE", KEYS.leases, "r1") == b"%d" % (redis_subject.clock.now_us + 60_000_000)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_keys_share_their_accounts_slot(partitions: int) -> None:
    """On a Cluster one call's keys must sit in one slot: the hash tag is the partition, and nothing else."""
    keys = Keyspace("tw", partitions).of(ACCOUNT)
    tags = {key[key.index(b"{") : key.index(b"}") + 1] for key in (keys.account, keys.holds, keys.leases, keys.events)}
    assert tags == {b"{%d}" % _partition(ACCOUNT, partitions)}


def _partition(account_id: str, partitions: int = PARTITIONS) -> int:
    name = Keyspace("tw", partitions).of(account_id).holds
    return int(name[name.index(b"{") + 1 : name.index(b"}")])
