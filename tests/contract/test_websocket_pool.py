"""WebSockets and preflights whose route has a choice of targets, and the models of a metered WebSocket."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from gateway.domain.accounts import ApiKey
from gateway.domain.key_terms import KeyTerms
from gateway.identity.keys import new_key
from tests.support.odd_peer import Script, always, odd_peer
from tests.support.openai_wire import http
from tests.support.pools import NOBODY, pool_settings
from tests.support.stand import Stand, now_ms, stand
from tests.support.until import until
from tests.support.valkey import ValkeyServer
from tests.support.websockets import Seen, calling, echo, request_id, upstream

ROUTE = """routes:
  - {{ path: /v1/realtime, upstream: main, dialect: openai-realtime, default_max_tokens: 100FALLBACK }}
  - {{ path: /open/*, upstream: main, dialect: plain, preflight: pass }}"""
TIERS = """
  free: {limits: {requests: {hour: 1000}, tokens: {day: 100000}}, concurrency: 20}
  some: {models: {allow: ["gpt-realtime*"], aliases: {live: gpt-realtime}}, limits: {tokens: {day: 100000}}}
"""
BUSY = always(http(b"busy", status="503 Busy"))
LATER = always(http(b"slow down", status="429 Too Many", fields="retry-after: 50\r\n"))
DENYING = always(http(b"", status="401 Unauthorized"))
REALTIME = "/v1/realtime?model=gpt-realtime"
ASKED = {"origin": "https://app.example", "access-control-request-method": "POST"}


@dataclass(slots=True)
class Pool:
    """A gateway before several targets; what each WebSocket server among them saw."""

    here: Stand
    seen: list[Seen]
    key: str


@asynccontextmanager
async def pool(
    directory: Path,
    valkey: ValkeyServer,
    *targets: Script | None,
    servers: int,
    fallback: int = 0,
    breaker: str = "failures: 2",
    tier: str = "free",
) -> AsyncIterator[Pool]:
    """`targets` play scripts, None is one that nobody listens at; behind them come `servers` that echo."""
    async with AsyncExitStack() as stack:
        ports, seen = [], []
        for script in targets:
            peer = None if script is None else await stack.enter_async_context(odd_peer(script))
            ports.append(NOBODY if peer is None else peer.port)
        for _ in range(servers):
            port, saw = await stack.enter_async_context(upstream(echo))
            ports.append(port)
            seen.append(saw)
        settings = pool_settings(ports, fallback=fallback, breaker=breaker)
        settings = settings.replace("routes:", ROUTE.replace("FALLBACK", ", fallback: [second]" if fallback else ""))
        here = await stack.enter_async_context(stand(directory, valkey, 0, settings=settings, tiers=TIERS))
        yield Pool(here, seen, await here.account("acme", tier))


async def spoken(here: Pool, path: str = REALTIME, key: str = "") -> str:
    """Open a WebSocket, hear the echo, close it; the request's id."""
    async with calling(here.here, key or here.key, path) as link:
        await link.send("hi")
        assert await link.recv() == "hi"
        return await request_id(link)


async def refused(here: Pool, path: str = REALTIME, key: str = "") -> tuple[int, dict[str, str], bytes]:
    """Ask for a WebSocket in vain; status, fields and body of the answer."""
    with pytest.raises(InvalidStatus) as caught:
        await calling(here.here, key or here.key, path)
    answer = caught.value.response
    return answer.status_code, dict(answer.headers), bytes(answer.body or b"")


@pytest.mark.parametrize("ill", [None, BUSY, LATER, DENYING], ids=["down", "503", "429", "401"])
async def test_a_handshake_finds_the_target_that_takes_it(
    tmp_path: Path, valkey: ValkeyServer, ill: Script | None
) -> None:
    """F5: before the upgrade is answered nothing was said, so an ill target costs no caller its session; one event."""
    async with pool(tmp_path, valkey, ill, servers=1) as here:
        ids = [await spoken(here) for _ in range(4)]

        assert here.seen[0].paths == [REALTIME] * 4
        assert {(await here.here.event(one)).requests for one in ids} == {1}
        assert here.seen[0].handshakes[0]["authorization"] == "Bearer upstream-secret"


async def test_open_websockets_are_load(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: sessions last for hours; they spread over the targets, and one that is closed weighs nothing any more."""
    async with pool(tmp_path, valkey, servers=2) as here:
        async with calling(here.here, here.key, REALTIME), calling(here.here, here.key, REALTIME):
            assert [len(seen.paths) for seen in here.seen] == [1, 1]
            async with calling(here.here, here.key, REALTIME), calling(here.here, here.key, REALTIME):
                assert [len(seen.paths) for seen in here.seen] == [2, 2]

        async def at_rest() -> bool:
            routing = here.here.gateway._routing
            return [member.running for member in routing._upstreams["main"].members] == [0, 0]

        await until(at_rest)


async def test_a_fallback_is_asked_for_its_own_model(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: another provider calls the model otherwise; its name alone is changed in the query."""
    async with pool(tmp_path, valkey, None, servers=1, fallback=1) as here:
        ended = await spoken(here, "/v1/realtime?a=%20b&model=m&c")

        assert here.seen[0].paths == ["/v1/realtime?a=%20b&model=its-m&c"]
        assert here.seen[0].handshakes[0]["authorization"] == "Bearer other"
        assert (await here.here.event(ended)).model == "its-m"


async def test_when_no_target_takes_it_the_client_reads_why(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: what the last target said, and once the breakers are open a 503 at once; neither is charged."""
    async with pool(tmp_path, valkey, BUSY, None, servers=0, breaker="failures: 1, first_pause_s: 60") as here:
        status, _, body = await refused(here)
        assert (status, body) == (503, b"busy")
        status, fields, body = await refused(here)
        assert status == 503
        assert json.loads(body)["error"]["code"] == "upstream_down"
        assert int(fields["retry-after"]) >= 20


async def test_a_later_of_all_targets_is_marked_as_theirs(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: an upstream's 429 is never taken for a limit of the caller's own."""
    async with pool(tmp_path, valkey, LATER, LATER, servers=0) as here:
        status, fields, body = await refused(here)

        assert (status, body, fields["x-tollway-upstream"], fields["retry-after"]) == (429, b"slow down", "main", "50")


async def test_models_of_the_tier_bind_a_websocket(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F6: a list that WebSockets pass by is none; an alias goes up as the model; who is refused reaches nobody."""
    async with pool(tmp_path, valkey, servers=1, tier="some") as here:
        status, _, body = await refused(here, "/v1/realtime?model=gpt-4o")
        assert (status, json.loads(body)["error"]["code"]) == (403, "model_not_allowed")
        assert "Tiers that have it: free." in json.loads(body)["error"]["message"]
        assert (await refused(here, "/v1/realtime"))[0] == 403
        for twice in ("/v1/realtime?model=live&model=gpt-4o", "/v1/realtime?mod%65l=gpt-4o&model=live"):
            status, _, body = await refused(here, twice)
            assert (status, json.loads(body)["error"]["code"]) == (400, "unknown_parameter")
        ended = await spoken(here, "/v1/realtime?model=live&a=b")

        assert here.seen[0].paths == ["/v1/realtime?model=gpt-realtime&a=b"]
        assert (await here.here.event(ended)).model == "gpt-realtime"


async def test_models_of_the_key_bind_a_websocket(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F4: a key that was given for one model opens no session of another."""
    async with pool(tmp_path, valkey, servers=1, tier="some") as here:
        key_id, text, digest = new_key(here.here.deployment.digest_key)
        terms = KeyTerms(models=("gpt-realtime",))
        await here.here.ledger.create_key(ApiKey(key_id, "acme", digest, "", now_ms(), terms=terms))
        await spoken(here, "/v1/realtime?model=live", text)
        status, _, body = await refused(here, "/v1/realtime?model=gpt-realtime-mini", text)

        assert (status, json.loads(body)["error"]["code"]) == (403, "model_not_in_key")


async def test_a_preflight_finds_the_target_that_answers(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: a page whose preflight fails sends nothing; and an upstream that wants a key on preflights is not ill."""
    fine = always(http(b"", status="204 No Content", fields="access-control-allow-origin: *\r\n"))
    async with pool(tmp_path, valkey, None, fine, servers=0) as here:
        got = [await here.here.client.options("/open/x", headers=ASKED) for _ in range(4)]
        assert [answer.status_code for answer in got] == [204] * 4
    (tmp_path / "other").mkdir()
    async with pool(tmp_path / "other", valkey, DENYING, DENYING, servers=0, breaker="failures: 1") as here:
        got = [await here.here.client.options("/open/x", headers=ASKED) for _ in range(4)]
        assert [answer.status_code for answer in got] == [401] * 4
