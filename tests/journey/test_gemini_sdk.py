"""The official Google Gen AI SDK through the gateway, with nothing but its base URL and key changed."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import errors, types
from google.genai.models import AsyncModels

from gateway.domain.usage import CountedBy, Outcome
from tests.support.openai_wire import http
from tests.support.scripted_upstream import SETTINGS, Streamed, scripted_upstream
from tests.support.stand import stand
from tests.support.valkey import ValkeyServer
from tests.support.wire_recordings import STREAMED, WHOLE, array, events, whole

TEXT, TOOL = "gemini/google-text", "gemini/google-tool-call"
STREAM = "/v1beta/models/gemini-3:streamGenerateContent"
BODY: dict[str, Any] = {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 60}}


@contextlib.asynccontextmanager
async def models(url: str, key: str) -> AsyncIterator[AsyncModels]:
    """The SDK, on httpx: on aiohttp it warns of itself."""
    options = types.HttpOptions(base_url=url, async_client_args={"transport": httpx.AsyncHTTPTransport()})
    client = genai.Client(api_key=key, http_options=options)
    async with client.aio as sdk:
        yield sdk.models
    client.close()


@pytest.mark.parametrize("name", [TEXT, TOOL])
async def test_a_whole_answer_and_what_the_upstream_is_asked(tmp_path: Path, valkey: ValkeyServer, name: str) -> None:
    """F2, F3: words and calls of functions come as the upstream sent them, thoughts are billed as output, and the
    upstream gets the gateway's key in place of the caller's.
    """  # noqa: D205
    async with (
        scripted_upstream(http(whole(name))) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SETTINGS) as here,
    ):
        key = await here.account()
        async with models(here.url, key) as sdk:
            answer = await sdk.generate_content(model="gemini-3", contents="hi")
        assert answer.sdk_http_response is not None
        headers = answer.sdk_http_response.headers or {}
        event = await here.event(headers["x-request-id"])
        asked = upstream.asked[0]

    assert bool(answer.function_calls) is (name == TOOL)
    usage = WHOLE[name]
    assert (event.input_tokens, event.output_tokens, event.reasoning_tokens) == (
        usage.input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    )
    assert (event.model, event.counted_by) == ("gemini-3", CountedBy.UPSTREAM)
    assert asked.line.endswith(b"/models/gemini-3:generateContent HTTP/1.1")
    assert asked.values(b"x-goog-api-key") == [b"upstream-secret"]
    assert key.encode() not in b"".join(value for _, value in asked.fields)


async def test_each_chunk_arrives_before_the_next_is_sent(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1, F2: the stream comes chunk by chunk, and is billed by its last report."""
    pieces = events(TEXT)
    async with (
        scripted_upstream(Streamed(pieces, paced=True)) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SETTINGS) as here,
    ):
        request_id = ""
        async with models(here.url, await here.account()) as sdk, asyncio.timeout(20):
            seen = 0
            async for chunk in await sdk.generate_content_stream(model="gemini-3", contents="hi"):
                seen += 1
                assert upstream.sent == seen
                upstream.go_on.release()
                assert chunk.sdk_http_response is not None
                request_id = (chunk.sdk_http_response.headers or {})["x-request-id"]
        event = await here.event(request_id)

    assert seen == len(pieces)
    assert (event.input_tokens, event.output_tokens) == (STREAMED[TEXT].input_tokens, STREAMED[TEXT].output_tokens)
    assert (event.outcome, event.streamed) == (Outcome.OK, True)


async def test_an_array_stream_with_the_key_in_the_query(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F3, F4: curl without `alt=sse` gets the array element by element, metered like events; its key stays here."""
    text = array(TEXT)
    first, *others = text.split(b"\n,\r\n")
    pieces = [first, *(b"\n,\r\n" + element for element in others)]
    arrived = set(itertools.accumulate(pieces))
    async with (
        scripted_upstream(Streamed(pieces, kind="application/json; charset=UTF-8", paced=True)) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SETTINGS) as here,
    ):
        key = await here.account()
        got = b""
        path = f"{STREAM}?key={key}&a=1"
        async with here.client.stream("POST", path, json=BODY) as answer, asyncio.timeout(20):
            async for data in answer.aiter_bytes():
                got += data
                if got in arrived:
                    upstream.go_on.release()
        event = await here.event(answer.headers["x-request-id"])

    assert got == text
    assert (event.input_tokens, event.output_tokens) == (STREAMED[TEXT].input_tokens, STREAMED[TEXT].output_tokens)
    assert (event.outcome, event.streamed) == (Outcome.OK, True)
    assert upstream.asked[0].line == f"POST {STREAM}?a=1 HTTP/1.1".encode()


async def test_refusals_are_the_sdks_own_errors(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B1: a full hour is 429 with a RetryInfo, a used-up month 403 without one, a bad key 401."""
    tiers = "  free: {limits: {requests: {hour: 1}}}\n  spent: {limits: {requests: {month: 1}}}"
    async with (
        scripted_upstream(http(whole(TEXT))) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SETTINGS, tiers=tiers) as here,
    ):
        raised = []
        keys = await here.account(), await here.account("other", "spent")
        for key in keys:
            async with models(here.url, key) as sdk:
                await sdk.generate_content(model="gemini-3", contents="hi")
        for key in (*keys, "AIza-not-ours"):
            async with models(here.url, key) as sdk:
                with pytest.raises(errors.ClientError) as caught:
                    await sdk.generate_content(model="gemini-3", contents="hi")
            raised.append(caught.value)
        kinds = [{one["@type"].rpartition(".")[2] for one in error.details["error"]["details"]} for error in raised]

    assert [(error.code, error.status) for error in raised] == [
        (429, "RESOURCE_EXHAUSTED"),
        (403, "PERMISSION_DENIED"),
        (401, "UNAUTHENTICATED"),
    ]
    assert ["RetryInfo" in kind for kind in kinds] == [True, False, False]
    assert len(upstream.asked) == 2


@pytest.mark.parametrize("action", ["countTokens", "embedContent"])
async def test_what_has_no_answer_in_words(tmp_path: Path, valkey: ValkeyServer, action: str) -> None:
    """F3: counting tokens costs none; an embedding costs its input, estimated where it is not reported."""
    async with (
        scripted_upstream(http(b'{"totalTokens":31,"embedding":{"values":[0.5]}}')) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SETTINGS) as here,
    ):
        headers = {"x-goog-api-key": await here.account()}
        answer = await here.client.post(f"/v1beta/models/m:{action}", json=BODY, headers=headers)
        event = await here.event(answer.headers["x-request-id"])

    assert answer.json()["totalTokens"] == 31
    assert (event.requests, event.output_tokens) == (1, 0)
    assert (event.input_tokens > 0) is (action == "embedContent")


async def test_a_stream_cut_short_is_an_error(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: half an answer raises in the app; what was reported of it so far is charged."""
    script = Streamed(events(TEXT)[:2], cut=True)
    async with (
        scripted_upstream(script) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SETTINGS) as here,
    ):
        headers = {"x-goog-api-key": await here.account()}
        answer = await here.client.post(f"{STREAM}?alt=sse", json=BODY, headers=headers)
        event = await here.event(answer.headers["x-request-id"])
        last = json.loads(answer.text.rstrip().rpartition("data: ")[2])

    assert last["error"]["status"] == "UNAVAILABLE"
    assert event.outcome is Outcome.UPSTREAM_CUT
    assert (event.input_tokens, event.output_tokens) == (9, 208)
