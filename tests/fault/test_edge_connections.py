"""The client's connection: reused, pipelined, without bodies, or read slowly, each answer stays the right one."""

import asyncio
import json
import resource
from pathlib import Path

import pytest

from tests.support.odd_peer import Script, Visit, always, odd_peer
from tests.support.openai_wire import DONE, STREAM_HEAD, chunk, completion, framed, http, usage_chunk
from tests.support.stand import CHAT, stand
from tests.support.truth_balance import PROMPT, answer_of, at_rest, bearer, events_of, head_of, post, wire
from tests.support.valkey import ValkeyServer

TIERS = """
  free: {limits: {requests: {hour: 1000}, tokens: {day: 100000}}}
  none: {limits: {requests: {hour: 1}}}
"""
REPLY = http(completion(prompt=9, output=4))


@pytest.mark.parametrize(
    ("case", "status"), [("no key", 401), ("unknown key", 401), ("nothing left", 429), ("too large", 413)]
)
async def test_a_connection_outlives_a_refusal_whose_body_was_not_read(
    tmp_path: Path, valkey: ValkeyServer, case: str, status: int
) -> None:
    """A body that the gateway had no use for is never taken for the next request: either the connection goes on with
    the right answer, or it closes. Anything else would be request smuggling.
    """  # noqa: D205
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key, spent = await here.account(), await here.account("spent", tier="none")
        assert (await here.client.post(CHAT, json=PROMPT, headers=bearer(spent))).status_code == 200
        tokens = {"no key": "", "unknown key": "tw_aaaaaaaaaaaa_" + "b" * 40, "nothing left": spent, "too large": key}
        # A body that holds what looks like a request of its own.
        inner = post(spent, "/v1/smuggled").decode()
        size = 1_100_000 if case == "too large" else 300_000
        refused = post(tokens[case], messages=[{"role": "user", "content": inner + "x" * size}])
        async with wire(here) as (reader, writer):
            writer.write(refused + post(key))
            first, _, body = await answer_of(reader)
            assert first == status
            assert json.loads(body)["error"]["type"]
            second = await reader.read(12)
            assert second in {b"HTTP/1.1 200", b""}
        assert all(b"smuggled" not in request.line for request in peer.requests)
        assert {event.endpoint for event in await events_of(here.ledger, "spent")} <= {CHAT}
        await at_rest(here, valkey, "acme", "spent")


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path, valkey: ValkeyServer) -> None:
    """RFC 9112 §9.3.2: two requests in one write get their own answers, in order, and each is counted."""

    async def echo(visit: Visit) -> None:
        while True:
            request = await visit.request()
            user = json.loads(request.body)["user"]
            await asyncio.sleep(0.05 if user == "first" else 0)
            await visit.say(http(completion(user, prompt=9, output=4)))

    async with odd_peer(echo) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        async with wire(here) as (reader, writer):
            writer.write(post(key, user="first") + post(key, user="second"))
            for user in ("first", "second"):
                status, _, body = await answer_of(reader)
                assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, user)
        await at_rest(here, valkey)
        assert len(await events_of(here.ledger)) == 2


@pytest.mark.parametrize(
    ("method", "reply", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1234\r\n\r\n", "1234"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", b'HTTP/1.1 304 Not Modified\r\netag: "a"\r\n\r\n', None),
        ("GET", b'HTTP/1.1 304 Not Modified\r\netag: "a"\r\ncontent-length: 1234\r\n\r\n', None),
    ],
)
async def test_answers_without_a_body_leave_the_connection_in_step(
    tmp_path: Path, valkey: ValkeyServer, method: str, reply: bytes, length: str | None
) -> None:
    """RFC 9110 §8.6, §15: what has no body may tell of a length, and none is waited for: the next answer follows."""
    async with odd_peer(always(reply)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        request = f"{method} /v1/things HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {key}\r\n\r\n".encode()
        async with wire(here) as (reader, writer):
            for _ in range(3):
                writer.write(request)
                async with asyncio.timeout(20):
                    status, fields = await head_of(reader)
                assert status == int(reply.split()[1])
                assert fields.get("content-length") == length
                assert "transfer-encoding" not in fields
        await at_rest(here, valkey)
        assert sum(event.requests for event in await events_of(here.ledger)) == 3


def _endless(sent: list[int], total: int) -> Script:
    """Streams events as fast as they are taken; keeps count of the bytes that went."""
    event = framed(chunk("word " * 2000))

    async def script(visit: Visit) -> None:
        while True:
            request = await visit.request()
            if b'"stream": true' not in request.body:
                await visit.say(REPLY)
                continue
            await visit.say(STREAM_HEAD)
            while sent[0] < total:
                await visit.say(event)
                sent[0] += len(event)
            await visit.say(framed(usage_chunk(5, 8)), framed(DONE), framed(b""))

    return script


async def test_a_slow_reader_costs_no_memory_and_nobody_else(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A caller that reads a large stream at a crawl holds its upstream back rather than filling the gateway, and
    others are served as ever.
    """  # noqa: D205
    sent = [0]
    total = 200_000_000
    async with odd_peer(_endless(sent, total)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key, others = await here.account(), await here.account("others")
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with wire(here) as (reader, writer):
            writer.write(post(key, stream=True))
            await head_of(reader)
            for _ in range(30):
                await reader.read(1000)
                answer = await here.client.post(CHAT, json=PROMPT, headers=bearer(others))
                assert answer.status_code == 200
            assert sent[0] < total / 4
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 64 * 1024
        await at_rest(here, valkey)
