"""A request that may go to several targets: spread by weight, sent again only where that doubles nothing, one event."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.odd_peer import Script, Visit, always, odd_peer
from tests.support.openai_wire import STREAM_HEAD, chunk, completion, framed, http
from tests.support.pools import FINE, pool
from tests.support.stand import CHAT, SETTINGS, stand
from tests.support.truth_balance import PROMPT, at_rest, bearer, events_of
from tests.support.until import until
from tests.support.valkey import ValkeyServer

LATER = http(b'{"error": {"message": "slow down"}}', status="429 Too Many", fields="retry-after: 50\r\n")
ILL = http(b'{"error": {"message": "ill"}}', status="500 Oops")
BUSY = http(completion(prompt=3, output=2), status="503 Busy")
UNSAFE = "    retry: {{ unsafe: true }}"


async def cutting(visit: Visit) -> None:
    """Reads requests and answers none."""
    await visit.request()


async def test_a_target_that_refuses_connections_costs_callers_nothing(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: what was never sent is sent elsewhere; without that every second caller of a half-dead pool fails."""
    async with pool(tmp_path, valkey, None, always(FINE)) as here:
        assert [(await here.ask())[0] for _ in range(6)] == [200] * 6
        assert here.asked[1] == 6
        await at_rest(here.here, valkey)
        events = await events_of(here.here.ledger)
        assert [event.requests for event in events] == [1] * 6


@pytest.mark.parametrize("said", [LATER, BUSY])
async def test_what_says_later_is_asked_elsewhere(tmp_path: Path, valkey: ValkeyServer, said: bytes) -> None:
    """F5: 429 and 503 say that nothing was done; another target is asked before the caller hears of it, and what the
    dropped answer did report is charged: one event with the sum.
    """  # noqa: D205
    async with pool(tmp_path, valkey, always(said), always(FINE)) as here:
        assert [(await here.ask())[0] for _ in range(2)] == [200, 200]
        assert here.asked[1] == 2
        await at_rest(here.here, valkey)
        events = await events_of(here.here.ledger)
        spent = here.asked[0] * (5 if said is BUSY else 0)
        assert sum(event.input_tokens + event.output_tokens for event in events) == 2 * 13 + spent
        assert here.asked[0] >= 1


@pytest.mark.parametrize("ill", [always(ILL), cutting], ids=["500", "cut"])
async def test_what_may_have_run_is_not_sent_again(tmp_path: Path, valkey: ValkeyServer, ill: Script) -> None:
    """F5, RFC 9110 §9.2.2: a POST that may have run would run, and cost, twice. The caller is told instead."""
    async with pool(tmp_path, valkey, ill, ill) as here:
        status, _, _ = await here.ask()
        assert status in {500, 502}
        assert sum(here.asked) == 1


@pytest.mark.parametrize("ill", [always(ILL), cutting], ids=["500", "cut"])
async def test_it_is_where_the_settings_say_so(tmp_path: Path, valkey: ValkeyServer, ill: Script) -> None:
    """F5: `retry.unsafe` is for upstreams whose work may be done twice; each target is asked once."""
    async with pool(tmp_path, valkey, ill, always(FINE), more=UNSAFE) as here:
        assert [(await here.ask())[0] for _ in range(3)] == [200] * 3
        assert here.asked[1] == 3


async def test_nothing_is_sent_again_after_the_first_byte(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: a second answer spliced onto the first one's beginning would be nonsense, and paid for twice."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(STREAM_HEAD, framed(chunk("half ")))

    async with pool(tmp_path, valkey, script, script, more=UNSAFE) as here:
        status, _, body = await here.ask(stream=True)
        assert status == 200
        assert b"upstream_broken" in body
        assert sum(here.asked) == 1


async def test_a_streamed_body_is_sent_once(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: what passed through unread can't be sent again; the caller reads the 503 itself."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 40_000

    async with pool(tmp_path, valkey, always(BUSY), always(BUSY)) as here:
        answer = await here.here.client.post("/v1/files", content=body(), headers=bearer(here.key))
        assert answer.status_code == 503
        assert sum(here.asked) == 1


async def test_an_upload_finds_the_target_that_listens(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: before its first byte was taken even a streamed body may go elsewhere."""

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 90_000

    async with pool(tmp_path, valkey, None, always(FINE)) as here:
        for _ in range(2):
            answer = await here.here.client.post("/v1/files", content=body(), headers=bearer(here.key))
            assert answer.status_code == 200
        assert [len(request.body) for request in here.seen[1]] == [90_000] * 2


async def test_when_all_say_later_so_does_the_gateway(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: the upstream's 429 and its Retry-After pass, marked as the upstream's; while all rest nobody is asked."""
    async with pool(tmp_path, valkey, always(LATER), always(LATER)) as here:
        status, fields, body = await here.ask()
        assert (status, fields["retry-after"], fields["x-tollway-upstream"]) == (429, "50", "main")
        assert b"slow down" in body
        assert here.asked == [1, 1]
        status, fields, body = await here.ask()
        assert (status, fields["x-tollway-upstream"], fields["x-should-retry"]) == (429, "main", "true")
        assert 30 <= int(fields["retry-after"]) <= 50
        assert b'"upstream_rate_limited"' in body
        assert here.asked == [1, 1]
        await at_rest(here.here, valkey)
        assert [event.requests for event in await events_of(here.here.ledger)] == [0, 0]


async def test_when_all_are_down_the_answer_is_quick(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: first what the upstream said, then, once the breakers are open, 503 at once, without a hang."""
    async with pool(tmp_path, valkey, always(BUSY), None, breaker="failures: 1, first_pause_s: 60") as here:
        status, _, body = await here.ask()
        assert (status, body) == (503, completion(prompt=3, output=2))
        async with asyncio.timeout(10):
            status, fields, body = await here.ask()
        assert status == 503
        assert b'"upstream_down"' in body
        assert 20 <= int(fields["retry-after"]) <= 60
        assert here.asked[0] == 1
        await at_rest(here.here, valkey)
        charged = [event.input_tokens + event.output_tokens for event in await events_of(here.here.ledger)]
        assert sorted(charged) == [0, 5]


async def test_a_breaker_opens_and_a_probe_closes_it(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: two failures open it, one good answer after the pause closes it; callers meet no more than those two."""
    well = asyncio.Event()

    async def script(visit: Visit) -> None:
        while True:
            await visit.request()
            await visit.say(FINE if well.is_set() else ILL)

    async with pool(tmp_path, valkey, script, always(FINE), breaker="failures: 2, first_pause_s: 60") as here:
        statuses = [(await here.ask())[0] for _ in range(10)]
        assert statuses.count(500) == 2
        assert here.asked == [2, 8]
        well.set()
        (upstream,) = here.here.gateway._routing._upstreams.values()
        upstream.members[0].health._clock = lambda: time.monotonic() + 60
        assert [(await here.ask())[0] for _ in range(6)] == [200] * 6
        assert here.asked[0] >= 4


async def test_a_fallback_is_asked_by_its_own_name_for_the_model(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: where the first upstream has nobody, the second is asked, with its own key and its own name of the model;
    the event tells both, so that what is billed is what ran.
    """  # noqa: D205
    async with pool(tmp_path, valkey, None, always(FINE), fallback=1) as here:
        status, _, _ = await here.ask()
        assert status == 200
        (request,) = here.seen[1]
        assert b'"model":"its-m"' in request.body.replace(b" ", b"")
        assert request.values(b"authorization") == [b"Bearer other"]
        await at_rest(here.here, valkey)
        (event,) = await events_of(here.here.ledger)
        assert (event.upstream, event.model, event.requests) == ("second", "its-m", 1)


async def test_requests_go_where_fewest_run(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: a slow target is not given more than it works off."""
    release = asyncio.Event()

    async def slow(visit: Visit) -> None:
        while True:
            await visit.request()
            await release.wait()
            await visit.say(FINE)

    async with pool(tmp_path, valkey, slow, always(FINE)) as here:
        waiting = [asyncio.create_task(here.ask()) for _ in range(2)]

        async def both_run() -> bool:
            return here.asked[0] == 1 and here.asked[1] == 1

        await until(both_run)
        assert [(await here.ask())[0] for _ in range(6)] == [200] * 6
        release.set()
        await asyncio.gather(*waiting)
        assert here.asked == [1, 7]


async def test_a_health_check_takes_a_target_out_and_brings_it_back(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: a target that says itself that it is ill is left alone before any caller finds out."""
    well = asyncio.Event()

    async def script(visit: Visit) -> None:
        while True:
            request = await visit.request()
            asked_well = request.line.startswith(b"GET /well ")
            await visit.say(FINE if well.is_set() or not asked_well else ILL)

    check = "    health: {{ path: /well, interval_s: 0.05 }}"
    breaker = "failures: 1, first_pause_s: 60"
    async with pool(tmp_path, valkey, script, always(FINE), more=check, breaker=breaker) as here:
        (upstream,) = here.here.gateway._routing._upstreams.values()
        health = upstream.members[0].health

        async def is_out() -> bool:
            return not health.is_fit

        async def is_back() -> bool:
            return health.is_fit

        await until(is_out)
        assert [(await here.ask())[0] for _ in range(4)] == [200] * 4
        assert not [request for request in here.seen[0] if request.line.startswith(b"POST")]
        well.set()
        await until(is_back)
        for _ in range(2):
            await here.ask()
        assert [request for request in here.seen[0] if request.line.startswith(b"POST")]


async def test_a_caller_who_leaves_frees_the_target(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: a load that leaked with every caller who leaves would starve the target for good."""
    async with pool(tmp_path, valkey, cutting_never, always(FINE)) as here:
        (upstream,) = here.here.gateway._routing._upstreams.values()
        waiting = [asyncio.create_task(here.ask()) for _ in range(4)]

        async def one_waits() -> bool:
            return here.asked[0] >= 1

        await until(one_waits)
        for task in waiting:
            task.cancel()

        async def free() -> bool:
            return all(member.running == 0 for member in upstream.members)

        await until(free)
        await at_rest(here.here, valkey)


async def cutting_never(visit: Visit) -> None:
    """Reads a request and answers nothing, for as long as the client waits."""
    await visit.request()
    await visit.client_gone()


async def test_attempts_are_bounded(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: one request can't set off a storm over a large pool that is all busy."""
    two = "    retry: {{ max_attempts: 2 }}"
    async with pool(tmp_path, valkey, *[always(BUSY)] * 4, more=two) as here:
        assert (await here.ask())[0] == 503
        assert sum(here.asked) == 2
        await at_rest(here.here, valkey)
        (event,) = await events_of(here.here.ledger)
        assert (event.requests, event.input_tokens, event.output_tokens) == (0, 6, 4)


async def test_what_may_be_repeated_by_its_method_is(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5, RFC 9110 §9.2.2: a GET that was cut is asked for elsewhere without a setting."""
    async with pool(tmp_path, valkey, cutting, always(FINE)) as here:
        for _ in range(2):
            answer = await here.here.client.get("/v1/models", headers=bearer(here.key))
            assert answer.status_code == 200
        assert here.asked == [1, 2]


async def test_a_revoked_key_is_not_a_black_hole(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: a target that turns every request down at once looks free; it must not draw all of them."""
    denied = http(b"{}", status="401 No")
    async with pool(tmp_path, valkey, always(denied), always(FINE), breaker="failures: 2, first_pause_s: 60") as here:
        assert [(await here.ask())[0] for _ in range(8)] == [200] * 8
        assert here.asked == [2, 8]


async def test_a_single_targets_429_is_told_from_ours(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: on a route without a choice too, a client can tell whose limit it met; nothing rests there."""
    async with odd_peer(always(LATER)) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = bearer(await here.account())
        for _ in range(2):
            answer = await here.client.post(CHAT, json=PROMPT, headers=key)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "50")
            assert answer.headers["x-tollway-upstream"] == "main"


async def test_several_keys_of_one_address(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: a key that is limited rests, and the other one serves."""
    keys: list[bytes] = []

    async def script(visit: Visit) -> None:
        while True:
            request = await visit.request()
            keys.append(request.values(b"authorization")[0])
            await visit.say(LATER if keys[-1] == b"Bearer one" else FINE)

    two = SETTINGS.replace("api_key: upstream-secret", "api_keys: [one, two]")
    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port, settings=two) as here:
        key = bearer(await here.account())
        for _ in range(4):
            assert (await here.client.post(CHAT, json=PROMPT, headers=key)).status_code == 200
    assert (keys.count(b"Bearer one"), keys.count(b"Bearer two")) == (1, 4)
