"""An account whose counters are gone while its usage is not in the ledger yet: who waits for it, and for how long."""

import asyncio
from pathlib import Path

import pytest

from gateway.domain.decisions import Missing
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.domain.limits import Limit, Tier, Unit, Window
from gateway.edge import hydration as module
from gateway.edge.hydration import Hydration
from gateway.ledger.ledger import Ledger
from gateway.quota.keys import era_of
from gateway.snapshot import Plan
from tests.support.limiters import ACCOUNT, RedisSubject, asked, line, running, settled
from tests.support.odd_peer import always, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.stand import CHAT, stand
from tests.support.truth_balance import PROMPT, bearer
from tests.support.until import until
from tests.support.valkey import ValkeyServer

PLAN = Plan(Tier("free", (Limit(Unit.REQUESTS, Window.HOUR, 10),)))


async def test_nobody_waits_for_the_ledger_longer_than_told(
    redis_subject: RedisSubject, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D6: a ledger that is behind costs a request its patience, and no more. Then it is refused, or admitted as its
    tier says; the account is tried on for those who come later.
    """  # noqa: D205
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    monkeypatch.setattr(module, "LONGEST_S", 60)
    now_s = redis_subject.clock.now_s
    await ledger.create_account(ACCOUNT, "free", "", now_s * 1000)
    await redis_subject.limiter.settle(settled(asked("r1", line(now_s, 10)), 1))
    hydration = Hydration(redis_subject.limiter, ledger)
    waits = [hydration.hydrate(ACCOUNT, 1, PLAN, PLAN.frame(now_s)) for _ in range(3)]

    told = await asyncio.gather(*waits, return_exceptions=True)

    assert [fault.kind for fault in told if isinstance(fault, Fault)] == [LIMITER_UNAVAILABLE] * 3
    assert await redis_subject.limiter.reserve(asked("r2", line(now_s, 10))) == Missing()
    await redis_subject.take_events()

    async def rebuilt() -> bool:
        return await redis_subject.limiter.peek(ACCOUNT) is not None

    await until(rebuilt)
    await hydration.hydrate(ACCOUNT, 1, PLAN, PLAN.frame(now_s))
    assert await running(redis_subject) == 0


async def test_a_gateway_knows_from_its_start_what_redis_has_not_lost(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D6: an outage in the first second of a worker that was started anew has no account rebuilt that is whole."""
    async with odd_peer(always(http(completion()))) as peer:
        async with stand(tmp_path, valkey, peer.port) as here:
            key = await here.account()
            assert (await here.client.post(CHAT, json=PROMPT, headers=bearer(key))).status_code == 200
            eras = here.gateway._limiter.eras
        async with stand(tmp_path, valkey, peer.port) as here:
            assert here.gateway._limiter.eras == eras
            assert era_of(eras, "acme")
