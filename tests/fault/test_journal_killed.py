"""Workers are killed while Redis hangs: what they had journaled is settled by those after them, once."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from gateway.domain.usage import Outcome
from gateway.settings.load import load
from gateway.settings.tiers import tier_of
from tests.support import outside
from tests.support.odd_peer import Peer, Script, Visit, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.stand import CHAT
from tests.support.truth_balance import PROMPT, bearer
from tests.support.truth_gateway import SETTINGS, Tollway
from tests.support.truth_verdict import live
from tests.support.until import until

ANSWERED, RUNNING = 30, 3
SHORT = SETTINGS.replace("timeout_ms: 5000", "timeout_ms: 300")


def _script(peer: Peer) -> Script:
    """Answers at once, but for those who ask for something slow."""

    async def script(visit: Visit) -> None:
        while True:
            request = await visit.request()
            peer.requests.append(request)
            if b'"slow"' in request.body:
                await peer.release.wait()
            await visit.say(http(completion(prompt=9, output=4)))

    return script


@pytest.mark.timeout(180)
async def test_workers_killed_while_redis_hangs_lose_nothing(tmp_path: Path) -> None:
    """D6, A8: of requests admitted without Redis, each answered one is in the ledger with its true usage and each
    running one with its input, after a kill -9 of every worker; the counters are the ledger's, the journal is gone, and
    whoever asks next is served.
    """  # noqa: D205
    peer = Peer()
    async with odd_peer(_script(peer)) as listening:
        with Tollway(tmp_path, listening.port, workers=2, settings=SHORT) as tollway:
            keys = await tollway.accounts({"wide": "wide"})
            async with httpx.AsyncClient(base_url=tollway.url, timeout=20, trust_env=False) as client:
                await _play(tollway, peer, client, keys["wide"])


async def _play(tollway: Tollway, peer: Peer, client: httpx.AsyncClient, key: str) -> None:
    async def ask(user: str) -> int:
        answer = await client.post(CHAT, json=PROMPT | {"user": user}, headers=bearer(key))
        return answer.status_code

    served = 0
    while served < 3:
        served += await ask("quick") == 200
    valkey = tollway.processes()["valkey-server"]
    os.kill(valkey, signal.SIGSTOP)
    try:
        assert [await ask("quick") for _ in range(ANSWERED)] == [200] * ANSWERED
        slow = [asyncio.create_task(ask("slow")) for _ in range(RUNNING)]
        await until(_arrived(peer, 3 + ANSWERED + RUNNING))
        for name, pid in tollway.processes().items():
            if name.startswith("worker"):
                os.kill(pid, signal.SIGKILL)
        await asyncio.gather(*slow, return_exceptions=True)
    finally:
        os.kill(valkey, signal.SIGCONT)
    await until(_journaled(tollway, 3 + ANSWERED + RUNNING), 45)

    async def empty() -> bool:
        return not any((await tollway.left_over()).values()) and not outside.journal(tollway.data_dir)

    await until(empty, 45)
    events = tollway.events({"wide"})
    answered = [event for event in events if event.outcome is Outcome.OK]
    assert {(event.input_tokens, event.output_tokens) for event in answered} == {(9, 4)}
    assert len(answered) == 3 + ANSWERED
    reaped = [event for event in events if event.outcome is Outcome.REAPED]
    assert len(reaped) == RUNNING
    assert all(event.requests == 1 and event.input_tokens > 0 for event in reaped)
    tier = tier_of("wide", load(tollway.file, {}).tiers["wide"])
    assert live(tier, await tollway.counters("wide"), events) == []
    assert await ask("quick") == 200


def _arrived(peer: Peer, number: int) -> Callable[[], Awaitable[bool]]:
    async def arrived() -> bool:
        return len(peer.requests) == number

    return arrived


def _journaled(tollway: Tollway, number: int) -> Callable[[], Awaitable[bool]]:
    async def journaled() -> bool:
        return len(tollway.events({"wide"})) >= number

    return journaled
