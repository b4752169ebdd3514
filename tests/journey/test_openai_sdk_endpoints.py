"""The official OpenAI SDK on every endpoint but chat, through the shipped routes: nothing changed but URL and key."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from gateway.domain.usage import Outcome
from tests.support.openai_endpoints import endpoints, events, response, shipped_settings, spoken
from tests.support.openai_wire import http
from tests.support.own_usage import limit_of
from tests.support.stand import stand
from tests.support.valkey import ValkeyServer

WORDS = ("one", " two", " three")
COUNTED = "input_tokens=9, output_tokens=4, cached_tokens=3, reasoning_tokens=1, counted_by=upstream"
SOUND = bytes(range(256)) * 400


async def test_a_response_is_answered_and_counted(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2, B3: the answer is the upstream's, its usage with it; cached and reasoning tokens are told apart."""
    async with (
        endpoints(responses=response()) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=shipped_settings()) as here,
    ):
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk:
            raw = await sdk.responses.with_raw_response.create(model="m", input="hi", max_output_tokens=50)
        event = await here.event(raw.headers["x-request-id"])

        assert raw.parse().output_text == "hello there"
        assert raw.headers["x-tollway-usage"] == COUNTED
        assert raw.headers["x-ratelimit-remaining-tokens"] == str(100_000 - 13)
        assert upstream.json() == {"model": "m", "input": "hi", "max_output_tokens": 50}
        assert (event.input_tokens, event.output_tokens, event.cached_tokens, event.reasoning_tokens) == (9, 4, 3, 1)


async def test_a_streamed_response_arrives_event_by_event(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1, F2, F3: the SDK's own events, all of them, and the bill of the last one; for a sync client too."""
    async with (
        endpoints(responses=spoken(WORDS)) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=shipped_settings()) as here,
    ):
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key) as sdk:
            raw = await sdk.responses.with_raw_response.create(model="m", input="hi", stream=True)
            kinds = [event.type async for event in raw.parse()]
            async with sdk.responses.stream(model="m", input="hi") as stream:
                final = await stream.get_final_response()
        event = await here.event(raw.headers["x-request-id"])

        def talk() -> list[str]:
            with OpenAI(base_url=here.url + "/v1", api_key=key) as sync:
                return [event.type for event in sync.responses.create(model="m", input="hi", stream=True)]

        assert kinds == await asyncio.to_thread(talk)
        assert (kinds[0], kinds[-1], len(kinds)) == ("response.created", "response.completed", 8)
        assert final.output_text == "one two three"
        assert (event.input_tokens, event.output_tokens, event.streamed, event.counted_by) == (9, 4, True, "upstream")


async def test_tools_and_structured_output_of_a_response(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2: what the SDK makes of the caller's types goes up unchanged, and comes back as the caller's types."""

    class Place(BaseModel):
        city: str

    call = {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "c_1",
        "name": "f",
        "arguments": "{}",
        "status": "completed",
    }
    tool: Any = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
    async with (
        endpoints(responses=response('{"city": "Rome"}')) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=shipped_settings()) as here,
    ):
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk:
            parsed = await sdk.responses.parse(model="m", input="hi", text_format=Place)
            schema = upstream.json()["text"]["format"]["schema"]
            upstream.answers["/v1/responses"] = response(output=[call])
            called = await sdk.responses.create(model="m", input="hi", tools=[tool])

        assert parsed.output_parsed == Place(city="Rome")
        assert set(schema["properties"]) == {"city"}
        assert [item.type for item in called.output] == ["function_call"]
        assert upstream.json()["tools"] == [tool]


async def test_a_background_response_is_charged_once_and_looked_at_for_nothing(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    """B1, F3: what is written out of sight is charged its estimate when it is ordered; polling it costs no tokens."""
    queued = response(status="queued", output=[], usage=None, background=True)
    async with (
        endpoints(responses=queued, responses__resp_1=response(background=True)) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=shipped_settings()) as here,
    ):
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key) as sdk:
            raw = await sdk.responses.with_raw_response.create(
                model="m", input="hi", background=True, max_output_tokens=500
            )
            ordered = await here.event(raw.headers["x-request-id"])
            for _ in range(2):
                look = await sdk.responses.with_raw_response.retrieve("resp_1")
                assert look.parse().status == "completed"
                assert (await here.event(look.headers["x-request-id"])).output_tokens == 0

        assert (ordered.output_tokens, ordered.counted_by) == (500, "estimate")
        assert (await limit_of(here, key, "tokens/month"))["used"] == ordered.input_tokens + 500


async def test_refusals_and_faults_are_the_sdks_own_errors(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A9, F2: whichever endpoint refuses, an app catches what it would catch of OpenAI."""
    tiers = "  free: {limits: {tokens: {day: 100}}}"
    async with (
        endpoints() as upstream,
        stand(tmp_path, valkey, upstream.port, tiers=tiers, settings=shipped_settings()) as here,
    ):
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key, max_retries=0) as sdk:
            asked = (
                sdk.responses.create(model="m", input="hi", max_output_tokens=500),
                sdk.embeddings.create(model="m", input="x" * 1000),
                sdk.images.generate(model="m", prompt="a cat"),
                sdk.audio.speech.create(model="m", voice="alloy", input="x" * 1000),
                sdk.audio.transcriptions.create(model="m", file=("a.wav", SOUND * 10)),
            )
            for one in asked:
                with pytest.raises(openai.RateLimitError) as raised:
                    await one
                assert raised.value.code == "rate_limit_exceeded"
            with pytest.raises(openai.BadRequestError, match="max_output_tokens must be an integer"):
                await sdk.responses.create(model="m", input="hi", max_output_tokens="many")  # type: ignore[call-overload]  # what an app may send
        assert upstream.asked == []


@pytest.mark.parametrize("end", ["cut", "error"])
async def test_a_response_that_breaks_off_is_an_error(tmp_path: Path, valkey: ValkeyServer, end: str) -> None:
    """F5, B1: half an answer never passes for a whole one, and what came of it is charged."""
    told = spoken(WORDS)[:5]
    if end == "error":
        told += events({"type": "error", "code": "server_error", "message": "oh no", "error": {"message": "oh no"}})
    async with (
        endpoints(responses=told) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=shipped_settings()) as here,
    ):
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk:
            raw = await sdk.responses.with_raw_response.create(model="m", input="hi", stream=True)
            with pytest.raises(openai.APIError, match="cut short" if end == "cut" else "oh no"):
                _ = [event async for event in raw.parse()]
        event = await here.event(raw.headers["x-request-id"])

        assert event.outcome == (Outcome.UPSTREAM_CUT if end == "cut" else Outcome.UPSTREAM_ERROR)
        assert 0 < event.output_tokens <= len("one two")


async def test_embeddings_are_counted(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2, F3: vectors pass as they are, and cost what the upstream says they cost."""
    data = [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}]
    answer = {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    async with (
        endpoints(embeddings=answer) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=shipped_settings()) as here,
    ):
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk:
            raw = await sdk.embeddings.with_raw_response.create(model="m", input="hi", encoding_format="float")
        event = await here.event(raw.headers["x-request-id"])

        assert raw.parse().data[0].embedding == [0.5, -0.25]
        assert (event.input_tokens, event.output_tokens, event.counted_by) == (5, 0, "upstream")


async def test_speech_passes_as_it_is_spoken(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1, F2: sound is not held back to be read; it costs its letters and the sound that they make."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: %d\r\n\r\n" % len(SOUND)
    async with (
        endpoints(audio__speech=head + SOUND) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=shipped_settings()) as here,
    ):
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk:
            spoken_at_once = await sdk.audio.speech.create(model="tts-1", voice="alloy", input="hello" * 10)
            async with sdk.audio.speech.with_streaming_response.create(
                model="tts-1", voice="alloy", input="hello" * 10
            ) as stream:
                sound = b"".join([piece async for piece in stream.iter_bytes()])
                event = await here.event(stream.headers["x-request-id"])

        assert spoken_at_once.content == sound == SOUND
        assert (event.input_tokens, event.output_tokens, event.counted_by) == (25, 75, "estimate")


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"type": "tokens", "input_tokens": 14, "output_tokens": 4, "total_tokens": 18}, (14, 4)),
        ({"type": "duration", "seconds": 3}, (30, 0)),
    ],
)
async def test_a_transcription_uploads_and_is_counted(
    tmp_path: Path, valkey: ValkeyServer, usage: dict[str, Any], tokens: tuple[int, int]
) -> None:
    """F2, F3: the form reaches the upstream byte for byte; tokens or seconds become the bill."""
    async with (
        endpoints(audio__transcriptions={"text": "hello", "usage": usage}) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=shipped_settings()) as here,
    ):
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk:
            raw = await sdk.audio.transcriptions.with_raw_response.create(model="whisper-1", file=("a.wav", SOUND))
        event = await here.event(raw.headers["x-request-id"])

        assert raw.parse().text == "hello"
        assert SOUND in upstream.asked[0].body
        assert (event.model, event.counted_by) == ("whisper-1", "upstream")
        assert (event.input_tokens, event.output_tokens) == tokens


async def test_pictures_are_counted_or_charged_by_rule(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2, F3: newer models report their tokens; where one reports none, size and quality say what it costs."""
    picture = base64.b64encode(SOUND).decode()
    report = {
        "input_tokens": 50,
        "input_tokens_details": {"text_tokens": 50, "image_tokens": 0},
        "output_tokens": 272,
        "total_tokens": 322,
    }
    partial = {"type": "image_generation.partial_image", "b64_json": picture, "partial_image_index": 0}
    last = {"type": "image_generation.completed", "b64_json": picture, "usage": report}
    whole = {"created": 1, "data": [{"b64_json": picture}]}
    async with (
        endpoints(images__generations=whole | {"usage": report}, images__edits=whole) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=shipped_settings()) as here,
    ):
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk:
            made = await sdk.images.with_raw_response.generate(model="gpt-image-2", prompt="a cat")
            edited = await sdk.images.with_raw_response.edit(
                model="gpt-image-2", prompt="a cat", image=[("a.png", b"\x89PNG")], quality="low", size="1024x1024"
            )
            upstream.answers["/v1/images/generations"] = events(partial, last)
            streamed = await sdk.images.with_raw_response.generate(model="gpt-image-2", prompt="a cat", stream=True)
            kinds = [event.type async for event in streamed.parse()]
        of = [await here.event(raw.headers["x-request-id"]) for raw in (made, edited, streamed)]

        assert (made.parse().data or [])[0].b64_json == picture
        assert kinds == ["image_generation.partial_image", "image_generation.completed"]
        assert [(event.output_tokens, event.counted_by) for event in of] == [
            (272, "upstream"),
            (272, "estimate"),
            (272, "upstream"),
        ]


async def test_an_upstreams_error_costs_no_tokens(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A picture that was refused, or sound that failed, is not charged by its estimate."""
    refused = http(b'{"error": {"message": "no such voice"}}', status="400 Bad Request")
    broken = http(b"x", status="500 Oh No", kind="audio/mpeg")
    async with (
        endpoints(images__generations=refused, audio__speech=broken) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=shipped_settings()) as here,
    ):
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key, max_retries=0) as sdk:
            with pytest.raises(openai.BadRequestError) as bad:
                await sdk.images.generate(model="m", prompt="a cat")
            with pytest.raises(openai.InternalServerError) as failed:
                await sdk.audio.speech.create(model="m", voice="alloy", input="hello")
        of = [await here.event(raised.value.response.headers["x-request-id"]) for raised in (bad, failed)]

        assert [(event.requests, event.input_tokens + event.output_tokens) for event in of] == [(1, 0), (0, 0)]


async def test_completions_still_work(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F3: the oldest endpoint is metered too."""
    choice = {"index": 0, "text": "hello", "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    answer = {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    async with (
        endpoints(completions=answer) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=shipped_settings()) as here,
    ):
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account()) as sdk:
            raw = await sdk.completions.with_raw_response.create(model="m", prompt="hi", max_tokens=5)
        event = await here.event(raw.headers["x-request-id"])

        assert raw.parse().choices[0].text == "hello"
        assert (event.input_tokens, event.output_tokens, event.estimated_tokens > 5) == (9, 4, True)
