"""Redis hung or dead for seconds under load: nobody waits, tiers behave as configured, and nothing is over or lost."""

import asyncio
import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.odd_peer import Script, Visit, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.stand import CHAT, SETTINGS, Stand, stand
from tests.support.truth_balance import PROMPT, at_rest, bearer, events_of
from tests.support.until import until
from tests.support.valkey import ValkeyServer

TIMEOUT_MS = 300
SILENT_S = 3.0
SLACK_S = 1.0
"""What a busy machine may add, beside the time in which this loop, the gateway's too, stood still."""

TICK_S = 0.02

LIMIT = 400
SHARE = 0.25
FAST = SETTINGS.replace("namespace: tw", f"namespace: tw, timeout_ms: {TIMEOUT_MS}, local_share: {SHARE}")
TIERS = f"""
  free: {{limits: {{requests: {{day: 100000}}, tokens: {{day: 100000000}}}}, concurrency: 400, when_unavailable: allow}}
  tight: {{limits: {{requests: {{day: {LIMIT}}}}}}}
  paid: {{limits: {{tokens: {{month: 100000000}}}}}}
"""


@dataclass(slots=True)
class Truth:
    """The upstream's own count: answers by the caller's account, named in the prompt's `user`."""

    served: Counter[str] = field(default_factory=Counter)

    def script(self) -> Script:
        """Answers at once, and counts."""

        async def answer(visit: Visit) -> None:
            while True:
                request = await visit.request()
                self.served[json.loads(request.body)["user"]] += 1
                await visit.say(http(completion(prompt=9, output=4)))

        return answer


@dataclass(slots=True)
class Load:
    """Callers of several accounts who ask without a pause, and what became of it."""

    here: Stand
    keys: dict[str, str]
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    codes: set[str] = field(default_factory=set)
    longest_s: float = 0.0
    """To an answer, without the time in which the loop stood still meanwhile."""
    stood_s: float = 0.0
    over: bool = False
    callers: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, callers: int) -> None:
        """So many callers of each account."""
        self.callers.append(asyncio.create_task(self._watch_the_loop()))
        for account in self.keys:
            self.statuses[account] = Counter()
            self.callers += [asyncio.create_task(self._ask(account)) for _ in range(callers)]

    async def stop(self) -> None:
        """Wait for the last answers."""
        self.over = True
        await asyncio.gather(*self.callers)

    async def _ask(self, account: str) -> None:
        while not self.over:
            began_s, stood_s = time.monotonic(), self.stood_s
            answer = await self.here.client.post(
                CHAT, json=PROMPT | {"user": account}, headers=bearer(self.keys[account])
            )
            waited_s = time.monotonic() - began_s - (self.stood_s - stood_s)
            self.longest_s = max(self.longest_s, waited_s)
            self.statuses[account][answer.status_code] += 1
            if answer.status_code >= 400:
                self.codes.add(answer.json()["error"]["code"])
                assert answer.status_code != 503 or int(answer.headers["retry-after"]) >= 1
            await asyncio.sleep(0.01)

    async def _watch_the_loop(self) -> None:
        while not self.over:
            began_s = time.monotonic()
            await asyncio.sleep(TICK_S)
            self.stood_s += max(0.0, time.monotonic() - began_s - 2 * TICK_S)


async def silence(valkey: ValkeyServer, how: str, lasts_s: float) -> None:
    """Take Redis away for a while."""
    if how == "hung":
        os.kill(valkey.pid, signal.SIGSTOP)
    else:
        valkey.kill()
    await asyncio.sleep(lasts_s)
    if how == "hung":
        os.kill(valkey.pid, signal.SIGCONT)
    else:
        valkey.start()


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    """A server that keeps what it said it took, in a short path."""
    durable = "--appendonly", "yes", "--appendfsync", "always"
    with tempfile.TemporaryDirectory(prefix="twv") as path, ValkeyServer(Path(path), *durable) as server:
        yield server


@pytest.mark.parametrize("how", ["hung", "dead"])
async def test_a_silent_redis_under_load(tmp_path: Path, valkey: ValkeyServer, how: str) -> None:
    """D6: an allowed tier never sees an error, a denied one 503 with Retry-After and no 401 or 429, nobody waits longer
    than one time-out, what is admitted beyond the limit stays within the share, and once Redis is back the counters are
    the ledger's and the ledger the upstream's.
    """  # noqa: D205
    truth = Truth()
    async with (
        odd_peer(truth.script()) as peer,
        stand(tmp_path, valkey, peer.port, tiers=TIERS, settings=FAST) as here,
    ):
        keys = {tier: await here.account(tier, tier) for tier in ("free", "tight", "paid")}
        load = Load(here, keys)
        load.start(callers=4)
        await until(_served(truth, "paid", 20))
        await silence(valkey, how, SILENT_S)
        await until(_asked_on(load))
        await load.stop()
        assert load.longest_s < TIMEOUT_MS / 1000 + SLACK_S
        assert set(load.statuses["free"]) == {200}
        assert set(load.statuses["tight"]) <= {200, 429, 503}
        assert set(load.statuses["paid"]) == {200, 503}
        assert load.codes <= {"limiter_unavailable", "rate_limit_exceeded"}
        assert truth.served["tight"] <= LIMIT + LIMIT * SHARE
        assert here.gateway._outage.admitted > 50
        returned_s = time.monotonic()
        await until(_journal_is_empty(here))
        await at_rest(here, valkey, *keys)
        assert time.monotonic() - returned_s < 5
        for account in keys:
            events = await events_of(here.ledger, account)
            assert sum(event.requests for event in events) == truth.served[account]
            assert sum(event.input_tokens for event in events) == 9 * truth.served[account]


def _served(truth: Truth, account: str, number: int) -> Callable[[], Awaitable[bool]]:
    async def served() -> bool:
        return truth.served[account] >= number

    return served


def _asked_on(load: Load) -> Callable[[], Awaitable[bool]]:
    """Whether the denied tier is served again."""
    before = load.statuses["paid"][200]

    async def asked_on() -> bool:
        return load.statuses["paid"][200] > before + 20

    return asked_on


def _journal_is_empty(here: Stand) -> Callable[[], Awaitable[bool]]:
    async def empty() -> bool:
        return here.gateway._outage.journal.size == 0

    return empty
