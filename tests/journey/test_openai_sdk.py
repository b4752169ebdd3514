"""The official OpenAI SDK through the gateway, with nothing but its base URL and key changed: whole answers."""

import asyncio
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from openai.types.chat.chat_completion_message_param import ChatCompletionMessageParam
from pydantic import BaseModel

from tests.support.own_usage import limit_of, own_usage
from tests.support.sdk_upstream import VECTOR, called, said, sdk_upstream
from tests.support.stand import stand
from tests.support.valkey import ValkeyServer

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
COUNTED = "input_tokens=9, output_tokens=4, cached_tokens=0, reasoning_tokens=0, counted_by=upstream"


async def test_an_async_client_gets_its_answer_and_where_its_limits_stand(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2, B3, D5: the answer is the upstream's; its headers tell its id, its usage and what is left. An app that shows
    a meter, or holds back before a 429, reads them there.
    """  # noqa: D205
    async with sdk_upstream(said("hello", " there")) as upstream, stand(tmp_path, valkey, upstream.port) as here:
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key) as sdk:
            raw = await sdk.chat.completions.with_raw_response.create(model="m", messages=HELLO)
        answer = raw.parse()
        event = await here.event(raw.headers["x-request-id"])

        assert answer.choices[0].message.content == "hello there"
        assert answer.usage is not None
        assert answer.usage.total_tokens == 13
        assert answer._request_id == raw.headers["x-request-id"]
        assert raw.headers["x-tollway-usage"] == COUNTED
        assert raw.headers["x-ratelimit-limit-requests"] == "1000"
        assert raw.headers["x-ratelimit-remaining-requests"] == "999"
        assert raw.headers["x-ratelimit-limit-tokens"] == "100000"
        assert raw.headers["x-ratelimit-remaining-tokens"] == str(100_000 - 13)
        assert 0 < int(raw.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 3600
        assert (event.input_tokens, event.output_tokens, event.counted_by) == (9, 4, "upstream")


async def test_a_sync_client_gets_the_same(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2: most scripts are written with the synchronous client."""

    def talk(url: str, key: str) -> tuple[str | None, str | None]:
        with OpenAI(base_url=url + "/v1", api_key=key) as sdk:
            answer = sdk.chat.completions.create(model="m", messages=HELLO)
        return answer.choices[0].message.content, answer._request_id

    async with sdk_upstream(said("hello", " there")) as upstream, stand(tmp_path, valkey, upstream.port) as here:
        content, request_id = await asyncio.to_thread(talk, here.url, await here.account())
        assert content == "hello there"
        assert request_id is not None
        assert (await here.event(request_id)).output_tokens == 4


async def test_every_step_of_a_tool_calling_answer_is_counted(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B2, A8: the step that calls the tool and the step that answers are a request each, and the bill holds both, as
    the upstream reported them. Were only the last one counted, an agent would run almost for free.
    """  # noqa: D205
    steps = (
        called(("weather", ('{"city":', '"Rome"}')), input_tokens=20, output_tokens=7),
        said("sunny", input_tokens=40, output_tokens=2),
    )
    async with sdk_upstream(*steps) as upstream, stand(tmp_path, valkey, upstream.port) as here:
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key) as sdk:
            asked = await sdk.chat.completions.create(model="m", messages=HELLO, tools=[WEATHER])
            calls = asked.choices[0].message.tool_calls or []
            call = calls[0]
            assert isinstance(call, ChatCompletionMessageFunctionToolCall)
            step: Any = asked.choices[0].message.model_dump(exclude_none=True)
            told: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
            final = await sdk.chat.completions.create(model="m", messages=[*HELLO, step, told], tools=[WEATHER])

        events = [await here.event(str(answer._request_id)) for answer in (asked, final)]
        month = await limit_of(here, key, "tokens/month")

        assert call.function.arguments == '{"city":"Rome"}'
        assert final.choices[0].message.content == "sunny"
        assert upstream.asked[1]["messages"][2] == told
        assert [(event.input_tokens, event.output_tokens) for event in events] == [(20, 7), (40, 2)]
        assert month["used"] == upstream.input_tokens + upstream.output_tokens == 69


async def test_structured_output_is_parsed_by_the_sdk(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2: the schema reaches the upstream as the SDK wrote it, and the answer becomes the caller's own type."""

    class Place(BaseModel):
        city: str
        people: int

    turn = said('{"city":', ' "Rome", "people": 3}')
    async with sdk_upstream(turn) as upstream, stand(tmp_path, valkey, upstream.port) as here:
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk:
            parsed = await sdk.chat.completions.parse(model="m", messages=HELLO, response_format=Place)
        wanted = upstream.asked[0]["response_format"]

        assert parsed.choices[0].message.parsed == Place(city="Rome", people=3)
        assert (wanted["type"], wanted["json_schema"]["name"]) == ("json_schema", "Place")
        assert set(wanted["json_schema"]["schema"]["properties"]) == {"city", "people"}


async def test_embeddings_and_models_pass_as_they_are(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2, F3: what the gateway doesn't read it passes on byte for byte, base64 vectors too, and counts as a request."""
    async with sdk_upstream() as upstream, stand(tmp_path, valkey, upstream.port) as here:
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk:
            raw = await sdk.embeddings.with_raw_response.create(model="m", input=["one", "two"])
            models = [model.id async for model in sdk.models.list()]
        event = await here.event(raw.headers["x-request-id"])

        assert [tuple(item.embedding) for item in raw.parse().data] == [VECTOR, VECTOR]
        assert models == ["m"]
        assert upstream.lines == ["POST /v1/embeddings HTTP/1.1", "GET /v1/models HTTP/1.1"]
        assert (event.requests, event.status) == (1, 200)
        assert raw.headers["x-ratelimit-remaining-requests"] == "999"


async def test_own_usage_agrees_with_what_the_upstream_reported(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A1, A8, B4, C1: after any number of answers, whole and streamed, the caller's own usage page is the upstream's
    own count, with its limit, percent and reset, in the live counters and in the ledger alike.
    """  # noqa: D205
    turns = [said("a", input_tokens=100 * n, output_tokens=n) for n in range(1, 7)]
    async with sdk_upstream(*turns) as upstream, stand(tmp_path, valkey, upstream.port) as here:
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key) as sdk:
            for _ in range(3):
                whole = await sdk.chat.completions.with_raw_response.create(model="m", messages=HELLO)
                stream = await sdk.chat.completions.with_raw_response.create(model="m", messages=HELLO, stream=True)
                assert [chunk async for chunk in stream.parse()]
                await here.event(whole.headers["x-request-id"])
                await here.event(stream.headers["x-request-id"])
        usage = await own_usage(here, key)
        month = await limit_of(here, key, "tokens/month")

        assert (upstream.input_tokens, upstream.output_tokens) == (2100, 21)
        assert (usage["account"], usage["tier"], usage["counted_by"]) == ("acme", "free", "limiter")
        assert (month["used"], month["limit"], month["percent"]) == (2121, 1_000_000, 0.2)
        assert month["resets_at"].endswith("-01T00:00:00Z")
        assert (usage["month"]["input_tokens"], usage["month"]["output_tokens"]) == (2100, 21)
        assert usage["month"]["requests"] == 6
        assert usage["concurrency"] == {"limit": 100, "running": 0}


async def test_an_event_is_told_to_its_own_account_alone(tmp_path: Path, valkey: ValkeyServer) -> None:
    """C3: what one customer asked and paid is no other customer's to see: not even that it was asked."""
    async with sdk_upstream() as upstream, stand(tmp_path, valkey, upstream.port) as here:
        own, other = await here.account("acme"), await here.account("other")
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=own) as sdk:
            answer = await sdk.chat.completions.create(model="m", messages=HELLO)
        await here.event(str(answer._request_id))
        path = f"/_tollway/usage/events/{answer._request_id}"
        seen = [await here.client.get(path, headers={"authorization": f"Bearer {key}"}) for key in (own, other)]

        assert [reply.status_code for reply in seen] == [200, 404]
        assert (seen[0].json()["input_tokens"], seen[0].json()["tokens"]) == (9, 13)
        assert "acme" not in seen[1].text
