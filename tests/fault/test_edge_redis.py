"""Redis away, hung, emptied, and back: nobody gets in unchecked, nobody is blamed, no usage is lost or doubled."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from gateway.domain.usage import Outcome
from tests.support.odd_peer import Script, Visit, always, odd_peer
from tests.support.openai_wire import DONE, STREAM_HEAD, chunk, completion, framed, http, usage_chunk
from tests.support.stand import CHAT, SETTINGS, Stand, stand
from tests.support.truth_balance import PROMPT, at_rest, bearer, count, events_of, flushed, head_of, post, wire
from tests.support.until import until
from tests.support.valkey import ValkeyServer

TIERS = """
  free: {limits: {requests: {hour: 1000}, tokens: {day: 100000, month: 1000000}}, concurrency: 200}
  tiny: {limits: {requests: {hour: 2}, tokens: {day: 1000}}}
"""
REPLY = http(completion(prompt=9, output=4))


async def _ask(here: Stand, key: str) -> httpx.Response:
    return await here.client.post(CHAT, json=PROMPT, headers=bearer(key))


def _held_back(release: asyncio.Event) -> Script:
    """Streams the first half at once, the second when released; a request for a whole answer gets it at once."""

    async def script(visit: Visit) -> None:
        while True:
            request = await visit.request()
            if b'"stream": true' not in request.body:
                await visit.say(REPLY)
                continue
            await visit.say(STREAM_HEAD, framed(chunk("word ")))
            await release.wait()
            await visit.say(framed(usage_chunk(7, 2)), framed(DONE), framed(b""))

    return script


async def test_redis_gone_is_told_at_once_and_not_blamed_on_the_caller(tmp_path: Path, valkey: ValkeyServer) -> None:
    """503 with Retry-After within a blink, never 401 or 429; once Redis is back, so is the service."""
    patient = SETTINGS.replace("namespace: tw", "namespace: tw, timeout_ms: 20000")
    async with (
        odd_peer(always(REPLY)) as peer,
        stand(tmp_path, valkey, peer.port, tiers=TIERS, settings=patient) as here,
    ):
        key = await here.account()
        assert (await _ask(here, key)).status_code == 200
        await at_rest(here, valkey)
        valkey.kill()
        for _ in range(3):
            started_s = time.perf_counter()
            answer = await _ask(here, key)
            assert time.perf_counter() - started_s < 10, "the time-out was waited for"
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "limiter_unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        assert peer.connections == 1
        valkey.start()

        async def back() -> bool:
            return (await _ask(here, key)).status_code == 200

        await until(back)
        await at_rest(here, valkey)


async def test_redis_hung_is_waited_for_no_longer_than_its_time_out(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A Redis that takes calls and never answers costs a caller one time-out, and a reservation that it makes on
    waking is given back.
    """  # noqa: D205
    waiting_s = 3
    settings = SETTINGS.replace("namespace: tw", f"namespace: tw, timeout_ms: {waiting_s * 1000}")
    async with (
        odd_peer(always(REPLY)) as peer,
        stand(tmp_path, valkey, peer.port, tiers=TIERS, settings=settings) as here,
    ):
        key = await here.account()
        assert (await _ask(here, key)).status_code == 200
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            started_s = time.perf_counter()
            answers = await asyncio.gather(*[_ask(here, key) for _ in range(20)])
            assert time.perf_counter() - started_s < 2 * waiting_s
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        assert {answer.status_code for answer in answers} == {503}
        await at_rest(here, valkey)
        assert len(await events_of(here.ledger)) == 1


@pytest.mark.parametrize("meanwhile", ["nobody", "another request first"])
async def test_redis_lost_while_an_answer_runs(tmp_path: Path, valkey: ValkeyServer, meanwhile: str) -> None:
    """Redis dies with all it knew while an answer runs, and comes back empty: the answer ends as if nothing were, its
    event is in the ledger exactly once, and the live counters come to what the ledger says, whoever asked first.
    """  # noqa: D205
    release = asyncio.Event()
    async with odd_peer(_held_back(release)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        assert (await _ask(here, key)).status_code == 200
        await at_rest(here, valkey)
        async with wire(here) as (reader, writer):
            writer.write(post(key, stream=True))
            _, fields = await head_of(reader)
            valkey.kill()
            release.set()
            assert (await reader.readuntil(b"0\r\n\r\n")).count(b"[DONE]") == 1
        valkey.start()
        if meanwhile == "another request first":
            await until(_served(here, key))
        event = await here.event(fields["x-request-id"])
        assert (event.outcome, event.input_tokens, event.output_tokens) == (Outcome.OK, 7, 2)
        await until(_served(here, key))
        await at_rest(here, valkey)


async def test_an_emptied_redis_opens_no_used_up_window(tmp_path: Path, valkey: ValkeyServer) -> None:
    """FLUSHALL, by an operator or a failover: what was used up stays used up, and what still runs is counted when it
    ends.
    """  # noqa: D205
    release = asyncio.Event()
    async with odd_peer(_held_back(release)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        spent, running = await here.account("spent", tier="tiny"), await here.account("acme", tier="tiny")
        assert [(await _ask(here, spent)).status_code for _ in range(3)] == [200, 200, 429]
        assert (await _ask(here, running)).status_code == 200
        async with wire(here) as (reader, writer):
            writer.write(post(running, stream=True))
            await head_of(reader)
            await flushed(valkey)
            valkey.call(b"FLUSHALL")
            assert (await _ask(here, spent)).status_code == 429
            release.set()
            await reader.readuntil(b"0\r\n\r\n")
        assert (await _ask(here, running)).status_code == 429
        await at_rest(here, valkey, "spent", "acme")


async def test_scripts_flushed_under_load_cost_nothing(tmp_path: Path, valkey: ValkeyServer) -> None:
    """SCRIPT FLUSH, or a failover to a server that never saw the scripts: every request is served and counted once."""
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()

        async def load() -> set[int]:
            return {(await _ask(here, key)).status_code for _ in range(40)}

        loads = [asyncio.create_task(load()) for _ in range(8)]
        while not all(task.done() for task in loads):
            valkey.call(b"SCRIPT FLUSH")
            await asyncio.sleep(0.01)
        assert set.union(*[task.result() for task in loads]) == {200}
        await at_rest(here, valkey)
        assert len(await events_of(here.ledger)) == 320


async def test_a_busy_account_is_rebuilt_while_its_answers_end(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Redis is emptied while an account's answers run and end one by one, ten a second: the next request waits for
    the account to be rebuilt, and is served within seconds, not only once the last of them has ended.
    """  # noqa: D205
    ends: list[asyncio.Event] = [asyncio.Event() for _ in range(90)]
    waiting = iter(ends)

    async def slow(visit: Visit) -> None:
        while True:
            request = await visit.request()
            if b'"slow"' in request.body:
                await next(waiting).wait()
            await visit.say(REPLY)

    settings = SETTINGS.replace("flush_interval_ms: 20", "flush_interval_ms: 200")
    async with odd_peer(slow) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS, settings=settings) as here:
        key = await here.account()
        assert (await _ask(here, key)).status_code == 200
        posts = [here.client.post(CHAT, json=PROMPT | {"user": "slow"}, headers=bearer(key)) for _ in ends]
        running = [asyncio.create_task(post) for post in posts]
        await until(_all_hold(valkey, len(ends)))
        valkey.call(b"FLUSHALL")
        ending = asyncio.create_task(_one_by_one(ends))
        await running[5]
        assert (await _ask(here, key)).status_code == 200
        assert not ending.done()
        ending.cancel()
        for end in ends:
            end.set()
        await asyncio.gather(*running)
        await at_rest(here, valkey)


async def _one_by_one(ends: list[asyncio.Event]) -> None:
    for end in ends:
        await asyncio.sleep(0.1)
        end.set()


def _all_hold(valkey: ValkeyServer, number: int) -> Callable[[], Awaitable[bool]]:
    async def all_hold() -> bool:
        return count(valkey, "HLEN holds") == number

    return all_hold


def _served(here: Stand, key: str) -> Callable[[], Awaitable[bool]]:
    """Whether a request is served."""

    async def served() -> bool:
        return (await _ask(here, key)).status_code == 200

    return served
