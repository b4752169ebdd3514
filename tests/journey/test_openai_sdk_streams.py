"""The official OpenAI SDK through the gateway: streamed answers, chunk by chunk, to their end or without one."""

import asyncio
import re
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageFunctionToolCall
from openai.types.chat.chat_completion_message_param import ChatCompletionMessageParam

from gateway.domain.usage import CountedBy, Outcome
from gateway.metering.ratio import FIRST_RATIO
from tests.support.own_usage import limit_of
from tests.support.sdk_upstream import called, said, sdk_upstream
from tests.support.stand import SETTINGS, stand
from tests.support.until import until
from tests.support.valkey import ValkeyServer

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
TOOLS: Any = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in "ab"]
WORDS = ("one", " two", " three", " four")
SILENCE = re.sub(r"between_bytes_s: \d+", "between_bytes_s: 120", SETTINGS)
"""No silence of the upstream's ends anything while a test runs."""


def choices(chunk: ChatCompletionChunk) -> dict[str, Any]:
    """What a chunk says, in the upstream's own words."""
    return {"choices": chunk.model_dump(exclude_unset=True)["choices"]}


@pytest.mark.parametrize("asked", [False, True])
async def test_the_parser_sees_exactly_the_upstreams_chunks(tmp_path: Path, valkey: ValkeyServer, asked: bool) -> None:
    """F2, B3: every chunk arrives as it was sent, and the usage chunk only where the app asked for it: an app that
    indexes `choices[0]` breaks on one it never asked for. Either way the bill is the upstream's count.
    """  # noqa: D205
    extra: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    async with sdk_upstream(said(*WORDS)) as upstream, stand(tmp_path, valkey, upstream.port) as here:
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk:
            raw = await sdk.chat.completions.with_raw_response.create(model="m", messages=HELLO, stream=True, **extra)
            chunks = [chunk async for chunk in raw.parse()]
        event = await here.event(raw.headers["x-request-id"])

        told = [chunk.usage.total_tokens for chunk in chunks if chunk.usage is not None]
        assert told == ([13] if asked else [])
        assert [choices(chunk) for chunk in chunks if chunk.choices] == upstream.chunks
        assert len(chunks) == len(upstream.chunks) + asked
        assert upstream.asked[0]["stream_options"] == {"include_usage": True}
        assert (event.input_tokens, event.output_tokens, event.streamed, event.counted_by) == (9, 4, True, "upstream")


async def test_streamed_tool_calls_join_to_the_upstreams_arguments(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2: two calls side by side, their arguments in pieces that break inside a string and inside an escape: an agent
    runs its tools with what is joined.
    """  # noqa: D205
    turn = called(("a", ('{"te', 'xt": "x\\', "n\\u00", 'e9"', "}")), ("b", ("{}",)))
    async with sdk_upstream(turn) as upstream, stand(tmp_path, valkey, upstream.port) as here:
        async with (
            AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk,
            sdk.chat.completions.stream(model="m", messages=HELLO, tools=TOOLS) as stream,
        ):
            final = await stream.get_final_completion()
        calls = final.choices[0].message.tool_calls or []
        functions = [call.function for call in calls if isinstance(call, ChatCompletionMessageFunctionToolCall)]

        assert [(function.name, function.arguments) for function in functions] == [
            ("a", '{"text": "x\\n\\u00e9"}'),
            ("b", "{}"),
        ]
        assert final.choices[0].finish_reason == "tool_calls"


async def test_each_chunk_arrives_before_the_next_is_sent(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1, F2: the upstream says nothing more until the reader has the last chunk in hand, so a gateway that holds even
    one back never ends. People watch the words come.
    """  # noqa: D205
    async with sdk_upstream(said(*WORDS, paced=True)) as upstream, stand(tmp_path, valkey, upstream.port) as here:
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk, asyncio.timeout(20):
            seen = 0
            async for _ in await sdk.chat.completions.create(model="m", messages=HELLO, stream=True):
                seen += 1
                assert len(upstream.chunks) == seen
                upstream.go_on.release()

        assert seen == len(WORDS) + 2


async def test_each_chunk_reaches_a_sync_client_before_the_next_is_sent(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1, F2: the synchronous client reads in smaller steps; the words come as they are said there too."""
    loop = asyncio.get_running_loop()
    async with sdk_upstream(said(*WORDS, paced=True)) as upstream, stand(tmp_path, valkey, upstream.port) as here:

        def talk(key: str) -> list[int]:
            with OpenAI(base_url=here.url + "/v1", api_key=key, timeout=20, max_retries=0) as sdk:
                sent = []
                for _ in sdk.chat.completions.create(model="m", messages=HELLO, stream=True):
                    sent.append(len(upstream.chunks))
                    loop.call_soon_threadsafe(upstream.go_on.release)
            return sent

        assert await asyncio.to_thread(talk, await here.account()) == list(range(1, len(WORDS) + 3))


async def test_a_cut_stream_is_an_error_and_not_a_short_answer(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5, B1: an upstream that dies mid-answer raises in the app, which else would take half an answer for the whole;
    the words that came are charged, and no more.
    """  # noqa: D205
    async with sdk_upstream(said(*WORDS, cut=3)) as upstream, stand(tmp_path, valkey, upstream.port) as here:
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk:
            raw = await sdk.chat.completions.with_raw_response.create(model="m", messages=HELLO, stream=True)
            seen: list[dict[str, Any]] = []
            with pytest.raises(openai.APIError, match="cut short") as raised:
                seen.extend([choices(chunk) async for chunk in raw.parse()])
        event = await here.event(raw.headers["x-request-id"])

        assert raised.value.code == "upstream_broken"
        assert (event.outcome, event.requests) == (Outcome.UPSTREAM_CUT, 1)
        assert event.counted_by is not CountedBy.UPSTREAM
        assert 0 < event.output_tokens <= len("one two")


async def test_a_client_that_leaves_ends_the_upstreams_work(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: once the app closes its stream the upstream no longer generates what nobody reads, and the account is charged
    what was seen of the answer: not nothing, and not the estimate that was held.
    """  # noqa: D205
    async with (
        sdk_upstream(said(*WORDS, stops=4)) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=SILENCE) as here,
    ):
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key) as sdk:
            raw = await sdk.chat.completions.with_raw_response.create(model="m", messages=HELLO, stream=True)
            stream = raw.parse()
            text = ""
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
                if text == "one two three":
                    break
            held = await limit_of(here, key, "tokens/month")
            await stream.close()
            await asyncio.wait_for(upstream.left.wait(), 30)
        event = await here.event(raw.headers["x-request-id"])
        charged = await limit_of(here, key, "tokens/month")

        assert held["used"] >= 100, "the default reservation of the route"
        assert (event.outcome, event.requests, event.status) == (Outcome.CLIENT_GONE, 1, 200)
        assert event.counted_by is CountedBy.ESTIMATE, "no tokenizer is installed here"
        assert event.output_tokens == -(-len(text) * FIRST_RATIO // 1)
        assert charged["used"] == event.input_tokens + event.output_tokens < held["used"]


async def test_a_client_that_leaves_frees_its_slot(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B1: an account of one request at once that closes its stream may ask again; a slot that leaked would lock it out
    for good.
    """  # noqa: D205
    tiers = "  free: {limits: {tokens: {day: 100000}}, concurrency: 1}"
    turns = (said(*WORDS, stops=2), said("done"))
    async with (
        sdk_upstream(*turns) as upstream,
        stand(tmp_path, valkey, upstream.port, tiers=tiers, settings=SILENCE) as here,
    ):
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key, max_retries=0) as sdk:
            async with await sdk.chat.completions.create(model="m", messages=HELLO, stream=True) as stream:
                assert await anext(stream)

            async def answered() -> bool:
                try:
                    await sdk.chat.completions.create(model="m", messages=HELLO)
                except openai.RateLimitError:
                    return False
                return True

            await until(answered, within_s=30)
