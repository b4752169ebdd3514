"""The official SDKs of Anthropic and of Google, with a strict parser beside it for what its own stream can't do (an
array, and being left); and callers without an SDK.
"""  # noqa: D205

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from google.genai import types

from tests.support.matrix.clients import Bit, Call, Client, HalfError, ToldError, bit
from tests.support.matrix.endings import HELD_TOKENS
from tests.support.matrix.gemini_content import CALL
from tests.support.matrix.wire import WORD

HELLO: Any = {"role": "user", "content": "hi"}
USED: Any = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}}
RESULT: Any = {"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"}
MESSAGES: dict[int, Any] = {
    1: [HELLO],
    2: [HELLO, {"role": "assistant", "content": [USED]}, {"role": "user", "content": [RESULT]}],
}
ASKED = {"role": "user", "parts": [{"text": "hi"}]}
GAVE_BACK = {"functionResponse": {"name": "weather", "response": {"sky": "sunny"}}}
CONTENTS: dict[int, Any] = {
    1: [ASKED],
    2: [ASKED, {"role": "model", "parts": [CALL]}, {"role": "user", "parts": [GAVE_BACK]}],
}


async def message_whole(call: Call) -> Bit:
    """A message."""
    answer = await call.anthropic().messages.create(
        model=call.cell, messages=MESSAGES[call.step], max_tokens=HELD_TOKENS
    )
    return bit("".join(block.text for block in answer.content if block.type == "text"), answer.stop_reason)


async def message_stream(call: Call) -> AsyncGenerator[Bit]:
    """The same, streamed, as the SDK puts it together."""
    async with call.anthropic().messages.stream(
        model=call.cell, messages=MESSAGES[call.step], max_tokens=HELD_TOKENS
    ) as stream:
        yield Bit()
        async for event in stream:
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                yield bit(event.delta.text)
            elif event.type == "message_stop":
                yield bit("", event.message.stop_reason)
            elif event.type in {"message_start", "content_block_start"}:
                yield Bit()


async def content_whole(call: Call) -> Bit:
    """Gemini's answer, from the official SDK."""
    google, contents = call.callers.google, CONTENTS[call.step]
    return _bit(await google.generate_content(model=call.cell, contents=contents, config=_config(call)))


async def content_stream(call: Call) -> AsyncGenerator[Bit]:
    """The same, streamed. This one can't be left: it reads on."""
    google, contents = call.callers.google, CONTENTS[call.step]
    async for chunk in await google.generate_content_stream(model=call.cell, contents=contents, config=_config(call)):
        yield _bit(chunk)


async def content_events(call: Call) -> AsyncGenerator[Bit]:
    """The same as events: each has one line of data and nothing else, and none is left half."""
    path = f"/v1beta/models/{call.cell}:streamGenerateContent?alt=sse"
    async with _post(call, path, _asked(call)) as answer:
        yield Bit()
        rest = ""
        async for text in answer.aiter_text():
            *events, rest = (rest + text).split("\r\n\r\n")
            for event in filter(None, events):
                yield _chunk(json.loads(event.removeprefix("data: ")))
        if rest:
            raise HalfError(rest)


async def content_array(call: Call) -> AsyncGenerator[Bit]:
    """The same as an array, which has to be closed when it has ended."""
    async with _post(call, f"/v1beta/models/{call.cell}:streamGenerateContent", _asked(call)) as answer:
        yield Bit()
        whole, words = "", 0
        async for text in answer.aiter_text():
            whole += text
            for _ in range(words, whole.count(f'"{WORD}"')):
                words += 1
                yield Bit(1)
    if not whole.rstrip().endswith("]"):
        raise HalfError(whole[-80:])
    bits = [_chunk(element) for element in json.loads(whole)]
    yield Bit(sum(one.words for one in bits) - words, bits[-1].finish)


async def speech_stream(call: Call) -> AsyncGenerator[Bit]:
    """Sound as events, for which the SDK has no parser: a piece of it is a word."""
    body = {"model": call.cell, "voice": "alloy", "input": "hi", "stream_format": "sse"}
    async with _post(call, "/v1/audio/speech", body) as answer:
        yield Bit()
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise ToldError(event["error"])
                yield Bit(1) if event["type"] == "speech.audio.delta" else Bit(0, "stop")


async def anything_whole(call: Call) -> Bit:
    """Any API's answer."""
    async with _post(call, "/v1/anything", {"model": call.cell}) as answer:
        return bit((await answer.aread()).decode(), "stop")


async def anything_stream(call: Call) -> AsyncGenerator[Bit]:
    """The same, as it comes."""
    async with _post(call, "/v1/anything", {"model": call.cell}) as answer:
        yield Bit()
        async for text in answer.aiter_text():
            yield bit(text)
    yield Bit(0, "stop")


def _asked(call: Call) -> dict[str, Any]:
    return {"contents": CONTENTS[call.step], "generationConfig": {"maxOutputTokens": HELD_TOKENS}}


@asynccontextmanager
async def _post(call: Call, path: str, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
    headers = call.headers | {"authorization": f"Bearer {call.key}"}
    async with call.callers.http.stream("POST", call.url + path, json=body, headers=headers) as answer:
        answer.raise_for_status()
        yield answer


def _config(call: Call) -> types.GenerateContentConfig:
    headers = call.headers | {"x-goog-api-key": call.key}
    return types.GenerateContentConfig(
        max_output_tokens=HELD_TOKENS,
        http_options=types.HttpOptions(api_version="v1beta", headers=headers, timeout=60_000),
    )


def _chunk(told: dict[str, Any]) -> Bit:
    if "error" in told:
        raise ToldError(told["error"])
    return _bit(types.GenerateContentResponse.model_validate(told))


def _bit(chunk: types.GenerateContentResponse) -> Bit:
    candidate = (chunk.candidates or [])[0]
    content = candidate.content
    text = "".join(part.text or "" for part in (content.parts or [] if content is not None else []))
    return bit(text, candidate.finish_reason.value if candidate.finish_reason is not None else "")


MESSAGES_CLIENT = Client(message_whole, message_stream)
EVENTS = Client(content_whole, content_stream, content_events)
ARRAY = Client(content_whole, content_array)
ANYTHING = Client(anything_whole, anything_stream)
