"""The built-in upstream under the official OpenAI SDK: what a newcomer's first request meets (F2)."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
import uvicorn
from anthropic import AsyncAnthropic
from google.genai import errors as genai_errors
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionUserMessageParam
from pydantic import BaseModel

from gateway.upstream.sandbox import Sandbox
from tests.support.sdk_callers import gemini_models

HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "one two three"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
        },
    },
}


@pytest.fixture
async def client() -> AsyncIterator[AsyncOpenAI]:
    """The SDK, pointed at a sandbox without pauses."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(Sandbox(pause_s=0), lifespan="off", log_config=None, http="httptools", interface="asgi3")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listening]))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    async with AsyncOpenAI(base_url=address, api_key="none", max_retries=0) as sdk:
        yield sdk
    server.should_exit = True
    await serving


async def test_a_whole_answer_carries_usage_that_anyone_can_count(client: AsyncOpenAI) -> None:
    """One word is one token, so a newcomer can check the first bill by hand."""
    answer = await client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)

    said = answer.choices[0].message.content
    assert said is not None
    assert "one two three" in said
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3
    assert answer.usage.completion_tokens == len(said.split())
    assert answer.usage.total_tokens == 3 + len(said.split())
    assert (answer.model, answer.choices[0].finish_reason) == ("gpt-4o-mini", "stop")


async def test_a_streamed_answer_says_the_same_as_a_whole_one(client: AsyncOpenAI) -> None:
    """Words arrive one by one, usage comes last and only when asked for."""
    whole = await client.chat.completions.create(model="m", messages=HELLO)
    stream = await client.chat.completions.create(
        model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) == len(text.split()) + 3
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].choices == []
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1

    bare = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
    assert not [chunk async for chunk in bare if chunk.usage is not None or not chunk.choices]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("most", [1, 5])
async def test_the_maximum_of_tokens_is_honoured(client: AsyncOpenAI, name: str, most: int) -> None:
    """The published bound of a limit leans on the upstream's keeping to it."""
    extra: dict[str, Any] = {name: most}
    answer = await client.chat.completions.create(model="m", messages=HELLO, **extra)

    assert answer.usage is not None
    assert answer.usage.completion_tokens == most
    assert len((answer.choices[0].message.content or "").split()) == most
    assert answer.choices[0].finish_reason == "length"


async def test_n_multiplies_the_output(client: AsyncOpenAI) -> None:
    """Every choice is billed, streamed or not."""
    whole = await client.chat.completions.create(model="m", messages=HELLO, n=3, max_tokens=4)
    stream = await client.chat.completions.create(model="m", messages=HELLO, n=3, max_tokens=4, stream=True)
    said = ["", "", ""]
    async for chunk in stream:
        said[chunk.choices[0].index] += chunk.choices[0].delta.content or ""

    assert whole.usage is not None
    assert whole.usage.completion_tokens == 12
    assert [choice.message.content for choice in whole.choices] == said


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_demanded_tool_is_called_with_its_required_fields(client: AsyncOpenAI, choice: Any) -> None:
    """An app's tool loop can be tried without a model, streamed or not."""
    asked: Any = {"model": "m", "messages": HELLO, "tools": [WEATHER], "tool_choice": choice}
    answer = await client.chat.completions.create(**asked)
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert calls[0].function.name == "weather"
    assert json.loads(calls[0].function.arguments) == {"city": "example", "unit": "C"}
    assert answer.choices[0].finish_reason == "tool_calls"

    async with client.chat.completions.stream(**asked) as stream:
        final = await stream.get_final_completion()
    streamed = final.choices[0].message.tool_calls
    assert streamed is not None
    assert streamed[0].function.arguments == calls[0].function.arguments


async def test_offered_tools_alone_are_not_called(client: AsyncOpenAI) -> None:
    """`auto` leaves the choice to the model; a loop that waits for a plain answer gets one."""
    answer = await client.chat.completions.create(model="m", messages=HELLO, tools=[WEATHER])
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content


async def test_structured_output_fits_its_schema(client: AsyncOpenAI) -> None:
    """The SDK's own parser takes the sandbox's answer, nested models and all."""

    class Step(BaseModel):
        title: str
        minutes: int | None

    class Plan(BaseModel):
        steps: list[Step]
        done: bool

    parsed = await client.chat.completions.parse(model="m", messages=HELLO, response_format=Plan)
    assert parsed.choices[0].message.parsed == Plan(steps=[Step(title="example", minutes=1)], done=True)

    loose = await client.chat.completions.create(model="m", messages=HELLO, response_format={"type": "json_object"})
    assert isinstance(json.loads(loose.choices[0].message.content or ""), dict)


async def test_parts_of_a_message_are_read_for_their_text(client: AsyncOpenAI) -> None:
    """Images and the like cost nothing here, their captions do."""
    image: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    answer = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": [{"type": "text", "text": "four little words here"}, image]}]
    )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4


async def test_models_are_listed(client: AsyncOpenAI) -> None:
    """SDKs and tools ask for them first."""
    assert [model.id async for model in client.models.list()] == ["sandbox"]


async def test_mistakes_are_told_in_the_sdk_s_own_errors(client: AsyncOpenAI) -> None:
    """A bad body is 400 and an unknown path 404, in a shape that the SDK reads."""
    with pytest.raises(openai.BadRequestError, match="length >= 1"):
        await client.chat.completions.create(model="m", messages=[])
    with pytest.raises(openai.NotFoundError, match="sandbox speaks OpenAI's chat completions alone"):
        await client.embeddings.create(model="m", input="x")
    with pytest.raises(openai.BadRequestError, match="not a chat completion request") as caught:
        await client.post("/chat/completions", cast_to=object, content=b"{not json")
    assert caught.value.type == "invalid_request_error"


async def test_callers_of_other_apis_read_why_in_their_own_shape(client: AsyncOpenAI) -> None:
    """Whoever tries the sandbox with another provider's SDK is told what it speaks, by that SDK's own error."""
    url = str(client.base_url).removesuffix("/v1/")
    async with AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as claude:
        with pytest.raises(anthropic.NotFoundError, match="chat completions alone") as told:
            await claude.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
    async with gemini_models(url, "none") as models:
        with pytest.raises(genai_errors.ClientError, match="chat completions alone") as said:
            await models.generate_content(model="m", contents="hi")

    assert told.value.type == "not_found_error"
    assert told.value.request_id
    assert (said.value.code, said.value.status) == (404, "NOT_FOUND")
