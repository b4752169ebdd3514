"""The proxy's contract with its callers and upstreams, over real sockets."""

import json
from pathlib import Path

import pytest

from tests.support.odd_peer import Script, Visit, always, odd_peer
from tests.support.openai_wire import DONE, STREAM_HEAD, chunk, completion, framed, http, usage_chunk
from tests.support.stand import CHAT, stand
from tests.support.valkey import ValkeyServer

PROMPT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}


def recording(seen: list[tuple[bytes, list[tuple[bytes, bytes]], bytes]], reply: bytes) -> Script:
    """A script that keeps what it was sent."""

    async def script(visit: Visit) -> None:
        while True:
            request = await visit.request()
            seen.append((request.line, request.fields, request.body))
            await visit.say(reply)

    return script


def streaming(*events: bytes) -> Script:
    """A script that streams events, one chunk each, to every request."""

    async def script(visit: Visit) -> None:
        while True:
            await visit.request()
            await visit.say(STREAM_HEAD, *[framed(event) for event in events], framed(b""))

    return script


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"authorization": f"Bearer {key}"}


async def test_an_answer_is_metered_to_the_token(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A8, B3, D5: a whole answer passes unchanged, its usage comes in a header, limits stand in every answer, and the
    ledger says exactly what the upstream reported. Whoever is billed is hurt if this breaks.
    """  # noqa: D205
    body = completion(prompt=9, output=4, prompt_tokens_details={"cached_tokens": 3})
    async with odd_peer(always(http(body))) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        answer = await here.client.post(CHAT, json=PROMPT, headers=bearer(key))
        assert answer.status_code == 200
        assert answer.content == body
        assert answer.headers["x-tollway-usage"] == (
            "input_tokens=9, output_tokens=4, cached_tokens=3, reasoning_tokens=0, counted_by=upstream"
        )
        assert answer.headers["x-ratelimit-remaining-requests"] == "999"
        assert answer.headers["x-ratelimit-remaining-tokens"] == str(100_000 - 13)
        assert '"tokens/month";r=999987;t=' in answer.headers["ratelimit"]
        event = await here.event(answer.headers["x-request-id"])
        assert (event.input_tokens, event.output_tokens, event.cached_tokens) == (9, 4, 3)
        assert (event.requests, event.status, event.outcome, event.counted_by) == (1, 200, "ok", "upstream")
        assert event.account_id == "acme"


async def test_credentials_stay_on_their_side(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1: the caller's key never reaches the upstream, the upstream's cookies and limits never reach the caller, and
    nobody can claim to have been forwarded. A leak here is a security incident.
    """  # noqa: D205
    seen: list[tuple[bytes, list[tuple[bytes, bytes]], bytes]] = []
    fields = "set-cookie: session=ours\r\nx-ratelimit-limit-requests: 7\r\nx-request-id: theirs\r\nserver: them\r\n"
    reply = http(completion(), fields=fields)
    async with odd_peer(recording(seen, reply)) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        sent = {
            **bearer(key),
            "x-api-key": key,
            "x-forwarded-for": "1.2.3.4",
            "connection": "x-private",
            "x-private": "1",
            "x-custom": "kept",
        }
        answer = await here.client.post(CHAT, json=PROMPT, headers=sent)
        names = {name.lower(): value for name, value in seen[0][1]}
        assert key.encode() not in b"".join(value for _, value in seen[0][1])
        assert names[b"authorization"] == b"Bearer upstream-secret"
        assert names[b"x-custom"] == b"kept"
        assert names[b"accept-encoding"] == b"identity"
        assert not {b"x-api-key", b"x-forwarded-for", b"x-private"} & set(names)
        assert "set-cookie" not in answer.headers
        assert answer.headers["x-ratelimit-limit-requests"] == "1000"
        assert answer.headers["x-upstream-request-id"] == "theirs"
        assert "server" not in answer.headers


async def test_a_stream_passes_without_the_chunk_that_only_we_asked_for(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B3, F2: usage is asked for upstream, and its chunk is taken out again unless the client asked for it itself."""
    events = [chunk("he"), chunk("llo"), chunk(None, finish="stop"), usage_chunk(5, 2), DONE]
    async with odd_peer(streaming(*events)) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        plain = await here.client.post(CHAT, json=PROMPT | {"stream": True}, headers=bearer(key))
        comment = b': tollway-usage {"input_tokens":5,"output_tokens":2,"cached_tokens":0,"reasoning_tokens":0}\n\n'
        assert plain.content == b"".join([*events[:3], comment, DONE])
        asked = PROMPT | {"stream": True, "stream_options": {"include_usage": True}}
        whole = await here.client.post(CHAT, json=asked, headers=bearer(key))
        assert whole.content == b"".join(events)
        for answer in (plain, whole):
            event = await here.event(answer.headers["x-request-id"])
            assert (event.input_tokens, event.output_tokens, event.streamed) == (5, 2, True)


async def test_a_refusal_costs_nothing_and_says_when(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B1, D1, D5: the third request of two is refused before the upstream hears of it, in the dialect's own shape,
    with the exact second at which it would fit.
    """  # noqa: D205
    seen: list[tuple[bytes, list[tuple[bytes, bytes]], bytes]] = []
    async with odd_peer(recording(seen, http(completion()))) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account(tier="tiny")
        for _ in range(2):
            assert (await here.client.post(CHAT, json=PROMPT, headers=bearer(key))).status_code == 200
        refused = await here.client.post(CHAT, json=PROMPT, headers=bearer(key))
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        reset = int(refused.headers["ratelimit"].split(";t=")[1].split(",")[0])
        assert int(refused.headers["retry-after"]) == reset
        assert refused.headers["x-should-retry"] == ("true" if int(refused.headers["retry-after"]) <= 60 else "false")
        assert len(seen) == 2


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"authorization": "Basic abc"}, "missing_api_key"),
        ({"authorization": "Bearer tw_nope"}, "invalid_api_key"),
        ({"authorization": "Bearer tw_aaaaaaaaaaaa_" + "b" * 40}, "invalid_api_key"),
    ],
)
async def test_who_is_not_known_is_told_so(
    tmp_path: Path, valkey: ValkeyServer, headers: dict[str, str], code: str
) -> None:
    """F4: 401 in OpenAI's own shape, so that the SDK raises its AuthenticationError; the upstream hears nothing."""
    async with odd_peer(always(http(completion()))) as peer, stand(tmp_path, valkey, peer.port) as here:
        answer = await here.client.post(CHAT, json=PROMPT, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"]["type"] == "authentication_error"
        assert peer.connections == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 200),  # falls to the prefix route
        ("POST", "/nowhere", 404),
        ("POST", "/v1/../nowhere", 404),
        ("POST", "/v1/%2e%2e/nowhere", 404),
        ("GET", "/v1/a%2f..%2f..%2fadmin", 400),
        ("GET", "/v1/a%00b", 400),
        ("GET", "/v1/files/a%2Fb", 200),
    ],
)
async def test_only_the_path_chooses_the_route(
    tmp_path: Path, valkey: ValkeyServer, method: str, path: str, status: int
) -> None:
    """F1: a path can't be dressed up to leave its route, and what is harmless arrives as it was sent."""
    seen: list[tuple[bytes, list[tuple[bytes, bytes]], bytes]] = []
    async with odd_peer(recording(seen, http(b"{}"))) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        answer = await here.client.request(method, path + "?q=1", headers=bearer(key))
        assert answer.status_code == status
        assert [line for line, _, _ in seen] == ([f"{method} {path}?q=1 HTTP/1.1".encode()] if status == 200 else [])


async def test_a_large_body_is_refused_before_it_is_read(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F6: 413 names the size; nothing is counted."""
    async with odd_peer(always(http(completion()))) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        answer = await here.client.post(CHAT, content=b"x" * (1024 * 1024 + 1), headers=bearer(key))
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "body_too_large"


async def test_a_broken_body_is_a_400_that_says_what(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2: bad input gets a clear error and costs nothing."""
    async with odd_peer(always(http(completion()))) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        answer = await here.client.post(CHAT, content=b'{"model": 5}', headers=bearer(key))
        assert answer.status_code == 400
        assert "model" in answer.json()["error"]["message"]
        assert peer.connections == 0


async def test_plain_bodies_pass_both_ways_unread(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1: a plain route carries a large upload and a large answer, chunked, byte for byte, and counts the request."""
    seen: list[tuple[bytes, list[tuple[bytes, bytes]], bytes]] = []
    blob = bytes(range(256)) * 8000
    reply = (
        b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\nset-cookie: a=b\r\n\r\n" + framed(blob) + framed(b"")
    )
    async with odd_peer(recording(seen, reply)) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        answer = await here.client.put("/open/things", content=blob, headers=bearer(key))
        assert (answer.status_code, answer.content, seen[0][2]) == (201, blob, blob)
        assert answer.headers["set-cookie"] == "a=b"
        assert answer.headers["x-ratelimit-remaining"] == "999"
        event = await here.event(answer.headers["x-request-id"])
        assert (event.requests, event.input_tokens, event.output_tokens) == (1, 0, 0)


@pytest.mark.parametrize(
    ("status", "sent", "counted"),
    [("400 Bad Request", 400, 1), ("500 Oops", 500, 0), ("429 Slow Down", 429, 0), ("401 Unauthorized", 502, 0)],
)
async def test_what_an_upstreams_error_costs(
    tmp_path: Path, valkey: ValkeyServer, status: str, sent: int, counted: int
) -> None:
    """What the caller did wrong counts as a request; what the upstream did wrong costs nothing; and a refused
    credential of ours is never mistaken for the caller's.
    """  # noqa: D205
    body = json.dumps({"error": {"message": "no"}}).encode()
    async with odd_peer(always(http(body, status=status))) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        answer = await here.client.post(CHAT, json=PROMPT, headers=bearer(key))
        assert answer.status_code == sent
        event = await here.event(answer.headers["x-request-id"])
        assert (event.requests, event.input_tokens + event.output_tokens) == (counted, 0)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completion%73",
        "/v1/chat%2Fcompletions",
        "/v1/%63hat/completions",
        "/v1/chat/completion%2573",
        "/v1/chat/completions/",
        "/v1//chat/completions",
        "/v1/Chat/Completions",
        "/v1/chat/completions;a=b",
        "/v1/chat/completions%20",
        "/v1/chat%5Ccompletions",
        "/v1/./chat/completions/%2e",
        "/v1/x/%252e%252e/chat/completions",
    ],
)
async def test_a_metered_route_has_one_spelling(tmp_path: Path, valkey: ValkeyServer, path: str) -> None:
    """D4, F1: upstreams read paths leniently; spelled otherwise a metered call would go by an unmetered route, free of
    charge. Either it is metered all the same or it is refused, and the upstream hears of it in the one spelling alone.
    """  # noqa: D205
    seen: list[tuple[bytes, list[tuple[bytes, bytes]], bytes]] = []
    async with odd_peer(recording(seen, http(completion()))) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        answer = await here.client.post(path, json=PROMPT, headers=bearer(key))
        if answer.status_code == 200:
            assert [line for line, _, _ in seen] == [f"POST {CHAT} HTTP/1.1".encode()]
            assert (await here.event(answer.headers["x-request-id"])).output_tokens == 4
        else:
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == "invalid_path"
            assert seen == []


@pytest.mark.parametrize("most", [10**20, 2**62, 10**9])
async def test_no_bound_that_a_caller_sets_voids_its_event(tmp_path: Path, valkey: ValkeyServer, most: int) -> None:
    """A8: a caller who asks for absurdly many tokens, where its tier doesn't limit them, is billed for what it got."""
    tiers = "  free: {limits: {requests: {hour: 10}}}"
    async with odd_peer(always(http(completion()))) as peer, stand(tmp_path, valkey, peer.port, tiers=tiers) as here:
        key = await here.account()
        answer = await here.client.post(CHAT, json=PROMPT | {"max_tokens": most}, headers=bearer(key))
        if answer.status_code != 400:
            event = await here.event(answer.headers["x-request-id"])
            assert (event.requests, event.input_tokens, event.output_tokens) == (1, 9, 4)
        assert await here.ledger.set_aside_count() == 0


async def test_a_stream_that_just_stops_is_no_whole_answer(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2: an upstream that ends its body cleanly in the middle of an answer cut it all the same: the SDK must raise,
    not hand half an answer to the app.
    """  # noqa: D205
    async with odd_peer(streaming(chunk("hel"), chunk("lo"))) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        answer = await here.client.post(CHAT, json=PROMPT | {"stream": True}, headers=bearer(key))
        assert b'"code":"upstream_broken"' in answer.content
        event = await here.event(answer.headers["x-request-id"])
        assert (event.outcome, event.requests) == ("upstream_cut", 1)
        assert event.output_tokens > 0


async def test_an_event_tells_the_status_that_the_caller_saw(tmp_path: Path, valkey: ValkeyServer) -> None:
    """C3: a report of who was answered what is of no use where it shows the upstream's side of a failure."""
    async with odd_peer(always(http(b"{}", status="401 No"))) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        answer = await here.client.post(CHAT, json=PROMPT, headers=bearer(key))
        assert answer.status_code == 502
        assert (await here.event(answer.headers["x-request-id"])).status == 502


async def test_a_redirect_leads_back_through_the_gateway(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1: an upstream's own address in `location` would send clients round the gateway; other hosts' stay."""
    for sent, told in (("http://127.0.0.1:{port}/v1/x?q", "/v1/x?q"), ("https://elsewhere/x", "https://elsewhere/x")):
        replies: list[bytes] = []

        async def script(visit: Visit, replies: list[bytes] = replies) -> None:
            await visit.request()
            await visit.say(replies[0])

        (tmp_path / sent[:5]).mkdir()
        async with odd_peer(script) as peer, stand(tmp_path / sent[:5], valkey, peer.port) as here:
            fields = f"location: {sent.format(port=peer.port)}\r\n"
            replies.append(http(b"", status="307 Temporary Redirect", fields=fields))
            key = await here.account(f"of-{told[:5].strip('/:')}")
            answer = await here.client.get("/v1/y", headers=bearer(key))
            assert (answer.status_code, answer.headers["location"]) == (307, told)
