"""The official Anthropic SDK through the gateway, with nothing but its base URL and key changed."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import anthropic
import anyio
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import MessageParam, ToolParam

from gateway.domain.usage import CountedBy, Outcome
from tests.support.openai_wire import http
from tests.support.scripted_upstream import SETTINGS, Streamed, scripted_upstream
from tests.support.shifted_clock import shifted_clock
from tests.support.stand import stand
from tests.support.valkey import ValkeyServer
from tests.support.wire_recordings import STREAMED, WHOLE, events, whole

HELLO: list[MessageParam] = [{"role": "user", "content": "hi"}]
TOOL: ToolParam = {"name": "json", "input_schema": {"type": "object"}}
TEXT, JSON_TOOL, THINKING = (f"anthropic/anthropic-{name}" for name in ("text", "json-tool.1", "clear-thinking.1"))
ASK: Any = {"model": "claude-next", "max_tokens": 50, "messages": HELLO}


async def test_a_whole_answer_and_what_the_upstream_is_asked(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2, F3, D5: the answer is the upstream's and the bill its count; it gets the gateway's key in place of the
    caller's, and the version that the SDK speaks; limits are told under Anthropic's names.
    """  # noqa: D205
    async with (
        scripted_upstream(http(whole(TEXT), fields="request-id: req_up\r\n")) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SETTINGS) as here,
    ):
        key = await here.account()
        async with AsyncAnthropic(base_url=here.url, api_key=key) as sdk:
            raw = await sdk.messages.with_raw_response.create(**ASK)
        event = await here.event(raw.headers["x-request-id"])
        asked = upstream.asked[0]

    assert (await raw.parse()).usage.output_tokens == WHOLE[TEXT].output_tokens
    assert (event.input_tokens, event.output_tokens) == (WHOLE[TEXT].input_tokens, WHOLE[TEXT].output_tokens)
    assert (event.model, event.counted_by) == ("claude-next", CountedBy.UPSTREAM)
    assert asked.values(b"x-api-key") == [b"upstream-secret"]
    assert [text.decode() for text in asked.values(b"anthropic-version")] == [sdk.default_headers["anthropic-version"]]
    assert key.encode() not in b"".join(value for _, value in asked.fields)
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "999"
    assert raw.headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
    assert "x-ratelimit-limit-requests" not in raw.headers


@pytest.mark.parametrize("name", [TEXT, JSON_TOOL, THINKING])
async def test_the_stream_helper_builds_the_upstreams_message(tmp_path: Path, valkey: ValkeyServer, name: str) -> None:
    """F2, B2: words, a tool's input and thinking, streamed: the SDK's own accumulator ends with the upstream's message
    and usage, and that is what is billed.
    """  # noqa: D205
    async with (
        scripted_upstream(Streamed(events(name))) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SETTINGS) as here,
    ):
        async with (
            AsyncAnthropic(base_url=here.url, api_key=await here.account()) as sdk,
            sdk.messages.stream(**ASK, tools=[TOOL]) as stream,
        ):
            final = await stream.get_final_message()
        event = await here.event(stream.response.headers["x-request-id"])

    assert [block.type for block in final.content][-1] == ("tool_use" if name == JSON_TOOL else "text")
    assert final.usage.output_tokens == STREAMED[name].output_tokens
    assert (event.input_tokens, event.output_tokens) == (STREAMED[name].input_tokens, STREAMED[name].output_tokens)
    assert (event.outcome, event.streamed, event.counted_by) == (Outcome.OK, True, CountedBy.UPSTREAM)


async def test_each_event_arrives_before_the_next_is_sent(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1, F2: the upstream says nothing more until the reader has the last event in hand: people watch words come."""
    pieces = [event for event in events(TEXT) if b'"ping"' not in event]
    async with (
        scripted_upstream(Streamed(pieces, paced=True)) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SETTINGS) as here,
    ):
        key = await here.account()
        async with AsyncAnthropic(base_url=here.url, api_key=key) as sdk, asyncio.timeout(20):
            seen = 0
            async for _ in await sdk.messages.create(**ASK, stream=True):
                seen += 1
                assert upstream.sent == seen
                upstream.go_on.release()
    assert seen == len(pieces)


async def test_a_sync_client_counts_tokens_for_nothing(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2, F3: the synchronous client; a count of tokens costs a request and no tokens, a bearer token is a key too."""
    scripts = http(b'{"input_tokens":14}'), http(whole(TEXT))
    async with (
        scripted_upstream(*scripts) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SETTINGS) as here,
    ):

        def talk(key: str) -> tuple[int, str, int]:
            with Anthropic(base_url=here.url, auth_token=key, api_key=None) as sdk:
                raw = sdk.messages.with_raw_response.count_tokens(model="m", messages=HELLO)
                answer = sdk.messages.create(**ASK)
            return raw.parse().input_tokens, raw.headers["x-request-id"], answer.usage.input_tokens

        counted, request_id, used = await asyncio.to_thread(talk, await here.account())
        event = await here.event(request_id)
        lines = [asked.line for asked in upstream.asked]

    assert (counted, used) == (14, WHOLE[TEXT].input_tokens)
    assert lines[0] == b"POST /v1/messages/count_tokens HTTP/1.1"
    assert (event.requests, event.input_tokens, event.output_tokens) == (1, 0, 0)


async def test_a_bad_key_is_an_authentication_error(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F4: the SDK raises what apps catch for it, with an id to quote, and tries once."""
    async with (
        scripted_upstream(http(whole(TEXT))) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SETTINGS) as here,
    ):
        async with AsyncAnthropic(base_url=here.url, api_key="sk-ant-not-ours") as sdk:
            with pytest.raises(anthropic.AuthenticationError) as raised:
                await sdk.messages.create(**ASK)
        body: Any = raised.value.body

    assert body["error"]["type"] == "authentication_error"
    assert raised.value.request_id == body["request_id"]
    assert upstream.asked == []


async def test_a_full_window_is_retried_after_exactly_its_end(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B1, D1: seconds before the minute ends the account is full; the SDK waits for Retry-After and then succeeds."""
    clock, sleep = shifted_clock(monkeypatch), anyio.sleep
    waits: list[tuple[float, float]] = []

    async def wait(seconds: float) -> None:
        waits.append((time.monotonic(), seconds))
        await sleep(seconds)

    monkeypatch.setattr(anyio, "sleep", wait)
    tiers = "  free: {limits: {requests: {minute: 1}}}"
    async with (
        scripted_upstream(http(whole(TEXT))) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SETTINGS, tiers=tiers) as here,
        AsyncAnthropic(base_url=here.url, api_key=await here.account()) as sdk,
    ):
        before_s = time.monotonic()
        clock.put(window_s=60, left_s=4)
        after_s = time.monotonic()
        await sdk.messages.create(**ASK)
        sent_s = time.monotonic()
        raw = await sdk.messages.with_raw_response.create(**ASK)

    ((heard_s, asked_s),) = waits
    assert raw.retries_taken == 1
    assert before_s + 4 - heard_s - 0.01 < asked_s < after_s + 4 - sent_s + 1.01, "the first second that has room"
    assert len(upstream.asked) == 2


async def test_wait_and_pay_are_two_errors(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B1: a full hour is a RateLimitError; a used-up month is none, and is not retried: the upstream hears nothing."""
    tiers = "  free: {limits: {requests: {hour: 1}}}\n  spent: {limits: {requests: {month: 1}}}"
    async with (
        scripted_upstream(http(whole(TEXT))) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SETTINGS, tiers=tiers) as here,
    ):
        keys = await here.account(), await here.account("other", "spent")
        raised: list[anthropic.APIStatusError] = []
        for key in keys:
            async with AsyncAnthropic(base_url=here.url, api_key=key) as sdk:
                await sdk.messages.create(**ASK)
                with pytest.raises(anthropic.APIStatusError) as caught:
                    await sdk.messages.create(**ASK)
                raised.append(caught.value)

    assert [type(error) for error in raised] == [anthropic.RateLimitError, anthropic.PaymentRequiredError]
    assert "retry-after" in raised[0].response.headers
    assert "retry-after" not in raised[1].response.headers
    assert raised[1].response.headers["x-should-retry"] == "false"
    assert len(upstream.asked) == 2


@pytest.mark.parametrize("told", [True, False])
async def test_half_an_answer_is_an_error(tmp_path: Path, valkey: ValkeyServer, told: bool) -> None:
    """F5, B1: an upstream that is overloaded or dies mid-answer raises in the app; the input that it told and the words
    that came are charged.
    """  # noqa: D205
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    tail = [f"event: error\ndata: {json.dumps(error)}\n\n".encode()] if told else []
    script = Streamed([*events(TEXT)[:6], *tail], cut=not told)
    async with (
        scripted_upstream(script) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SETTINGS) as here,
    ):
        async with AsyncAnthropic(base_url=here.url, api_key=await here.account()) as sdk:
            raw = await sdk.messages.with_raw_response.create(**ASK, stream=True)
            with pytest.raises(anthropic.APIStatusError, match="Overloaded" if told else "cut short"):
                assert [event async for event in await raw.parse()]
        event = await here.event(raw.headers["x-request-id"])

    assert event.outcome is (Outcome.UPSTREAM_ERROR if told else Outcome.UPSTREAM_CUT)
    assert event.input_tokens == STREAMED[TEXT].input_tokens
    assert event.output_tokens > 0
    assert event.counted_by is not CountedBy.UPSTREAM
