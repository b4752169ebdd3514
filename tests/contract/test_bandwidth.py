"""Bandwidth of a tier: the figure is met over all of an account's connections, smoothly, and shared fairly."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.edge.bandwidth import AHEAD_S, LATE_S, PRUNED_ACCOUNTS, ROUND_S, SLICE_S, Bandwidth
from gateway.edge.pace_table import PLACES, PaceTable
from tests.support.odd_peer import Visit, odd_peer
from tests.support.stand import Stand, stand
from tests.support.valkey import ValkeyServer

MBIT_S = 16
TIERS = f"  free: {{bandwidth_mbit_s: {MBIT_S}}}\n  open: {{}}"
MEASURED_S = 2.5
TRIES = 12
"""A machine that stands still for a third of a second can't meet the figure within so short a time."""

PIECE = bytes(65_536)
ENDLESS = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"


async def pour(visit: Visit) -> None:
    """Answer without an end, as fast as it is taken."""
    await visit.request()
    await visit.say(ENDLESS)
    while True:
        await visit.say(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))


async def download(here: Stand, key: str, seen: Callable[[int], None]) -> None:
    """Read, and tell how much came."""
    headers = {"authorization": f"Bearer {key}"}
    async with here.client.stream("GET", "/open/x", headers=headers) as answer:
        async for piece in answer.aiter_raw():
            seen(len(piece))


async def measure(here: Stand, key: str, connections: int) -> list[list[tuple[float, int]]]:
    """What came over so many connections within `MEASURED_S`, once the first bytes, which leave ahead, are out."""
    seen: list[list[tuple[float, int]]] = [[] for _ in range(connections)]
    first = asyncio.Event()

    def noting(moments: list[tuple[float, int]]) -> Callable[[int], None]:
        def note(size: int) -> None:
            moments.append((time.monotonic(), size))
            first.set()

        return note

    tasks = [asyncio.create_task(download(here, key, noting(moments))) for moments in seen]
    await first.wait()
    await asyncio.sleep(2 * (AHEAD_S + SLICE_S))
    began_s = time.monotonic()
    await asyncio.sleep(MEASURED_S)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return [[(at - began_s, size) for at, size in moments if 0 <= at - began_s < MEASURED_S] for moments in seen]


def faults_in(seen: list[list[tuple[float, int]]]) -> list[str]:
    """What is wrong with a measurement. More than the figure is never a matter of the machine, and fails at once."""
    sizes = [sum(size for _, size in moments) for moments in seen]
    rates = {"rate": sum(sizes) * 8 / MEASURED_S}
    for half, begin_s in (("first half", 0.0), ("second half", MEASURED_S / 2)):
        part = sum(size for moments in seen for at, size in moments if begin_s <= at < begin_s + MEASURED_S / 2)
        rates[half] = part * 16 / MEASURED_S
    assert rates["rate"] < 1.1 * MBIT_S * 1e6
    margin = {"rate": 0.1}
    faults = [f"{name} {rate}" for name, rate in rates.items() if abs(rate / MBIT_S / 1e6 - 1) > margin.get(name, 0.15)]
    return faults + ["unfair"] * (max(sizes) - min(sizes) > 3 * MBIT_S * 125_000 * SLICE_S)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("connections", [1, 8])
async def test_the_figure_is_met_and_shared(tmp_path: Path, valkey: ValkeyServer, connections: int) -> None:
    """D2: 50 / 250 / 500 Mbit/s mean what they say, however many connections the account opens; none of them starves,
    and bytes come evenly, not in bursts.
    """  # noqa: D205
    async with odd_peer(pour) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        for _ in range(TRIES):
            faults = faults_in(await measure(here, key, connections))
            if not faults:
                break
        assert faults == []


async def test_a_whole_answer_is_paced_too_and_is_whole(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D2: many short answers are no way around the figure, and nothing of them is lost or framed otherwise."""
    body = bytes(range(256)) * 1_000

    async def script(visit: Visit) -> None:
        while True:
            await visit.request()
            await visit.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body), body)

    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        began_s = time.monotonic()
        answers = [await here.client.get("/open/x", headers={"authorization": f"Bearer {key}"}) for _ in range(8)]

        assert [answer.content for answer in answers] == [body] * 8
        assert {answer.headers["content-length"] for answer in answers} == {str(len(body))}
        assert time.monotonic() - began_s > 0.8 * 8 * len(body) / (MBIT_S * 1e6 / 8)


async def test_a_tier_without_a_figure_is_sent_to_as_ever(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D2: another account's figure costs nobody else anything."""
    async with odd_peer(pour) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account("rich", "open")
        async with here.client.stream("GET", "/open/x", headers={"authorization": f"Bearer {key}"}) as answer:
            size, began_s = 0, time.monotonic()
            async for piece in answer.aiter_raw():
                size += len(piece)
                if size > 16_000_000:
                    break

        assert time.monotonic() - began_s < 16_000_000 * 8 / (MBIT_S * 1e6)


def test_a_bucket_is_exact_whatever_the_timers_do() -> None:
    """D2: timers that come late are made up for, up to a bound; time that went by unused isn't saved up."""
    now_s = 100.0
    bucket = Bandwidth(PaceTable(), 1, lambda: now_s).bucket("acme", 1e6)
    sent = 0
    for _ in range(1000):
        wait_s = bucket.take(bucket.slice_bytes, now_s)
        now_s += wait_s + 0.002 if wait_s else 0.0
        sent += bucket.slice_bytes
    assert sent == pytest.approx((now_s - 100) * 1e6, rel=0.02)

    now_s += 60
    burst = 0
    while not bucket.take(bucket.slice_bytes, now_s):
        burst += bucket.slice_bytes
    assert burst <= (LATE_S + AHEAD_S) * 1e6 + bucket.slice_bytes


def test_many_connections_take_smaller_turns() -> None:
    """D2: who opens a hundred connections has bytes on each of them about twice a second, as a slice of 50 ms for each
    would take five.
    """  # noqa: D205
    bucket = Bandwidth(PaceTable(), 1, lambda: 0.0).bucket("acme", 1e6)
    alone = bucket.slice_bytes
    bucket.waiting = 99

    assert alone == 1e6 * SLICE_S
    assert 100 * bucket.slice_bytes / 1e6 == pytest.approx(ROUND_S)


def test_workers_share_what_was_promised() -> None:
    """D2: an account's bytes at one worker wait for those at another, another account's don't."""
    now_s = 50.0
    table = PaceTable()
    here, there = [Bandwidth(table, 2, lambda: now_s).bucket("acme", 1e6) for _ in range(2)]
    other = Bandwidth(table, 2, lambda: now_s).bucket("other", 1e6)

    assert here.take(500_000, now_s) == 0
    assert there.take(500_000, now_s) == pytest.approx(0.5)
    assert here.take(500_000, now_s) == pytest.approx(1.0)
    assert other.take(500_000, now_s) == 0


def test_a_full_table_slows_and_forgives_nobody() -> None:
    """D2: where more accounts download at once than have a place, none gets more than its figure; places whose bytes
    have left are given away.
    """  # noqa: D205
    table = PaceTable()
    accounts = [Bandwidth(table, 1, lambda: 0.0).bucket(f"account {number}", 1e6) for number in range(2 * PLACES)]
    for account in accounts:
        account.take(1_000_000, 10.0)

    assert min(account.take(1, 10.0) for account in accounts) >= 1
    assert max(account.take(1, 1e6) for account in accounts) == 0


def test_accounts_that_nobody_waits_for_are_forgotten() -> None:
    """F1: a gateway that met a million accounts holds no million buckets."""
    now_s = 0.0
    bandwidth = Bandwidth(PaceTable(), 1, lambda: now_s)
    for number in range(3 * PRUNED_ACCOUNTS):
        now_s += 1.0
        bandwidth.bucket(f"account {number}", 1e6).take(1000, now_s)

    assert len(bandwidth._buckets) <= PRUNED_ACCOUNTS
