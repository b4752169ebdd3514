"""A stream that the gateway ends (row B5): SDKs must take it for one that ran into its maximum, never for a cut."""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletionChunk

from gateway.dialects.registry import DIALECTS
from gateway.domain.usage import Usage

OPENAI = DIALECTS["openai"]
USAGE = Usage(5, 7, 2, 1)
SAID = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "m"}


def event(*choices: tuple[int, str, str | None], **fields: Any) -> bytes:
    """One event; each choice is its index, its text and its finish reason."""
    listed = [{"index": index, "delta": {"content": text}, "finish_reason": end} for index, text, end in choices]
    return b"data: " + json.dumps(SAID | {"choices": listed} | fields).encode() + b"\n\n"


def chunks(sent: bytes) -> list[ChatCompletionChunk]:
    """The events as the official SDK reads them; comments are no events, and the last one is the terminator."""
    events = [text for text in sent.decode().split("\n\n") if text.startswith("data: ")]
    assert events.pop() == "data: [DONE]"
    return [ChatCompletionChunk.model_validate_json(text.removeprefix("data: "), strict=True) for text in events]


@pytest.mark.parametrize("strip", [True, False])
def test_a_stopped_stream_ends_as_one_that_ran_into_its_maximum(strip: bool) -> None:
    """Each choice that is open gets the finish reason `length`; the usage comes as a chunk only to who asked for it."""
    reader = OPENAI.stream_reader(strip_usage=strip)
    reader.feed(event((0, "hi", None), (1, "ho", None)))
    reader.feed(event((1, "", "stop")))

    ended = chunks(reader.stop(USAGE))

    assert [(choice.index, choice.finish_reason) for chunk in ended for choice in chunk.choices] == [(0, "length")]
    assert {(chunk.id, chunk.created, chunk.model) for chunk in ended} == {("chatcmpl-1", 17, "m")}
    told = [chunk.usage for chunk in ended if chunk.usage is not None]
    assert [(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) for usage in told] == (
        [] if strip else [(5, 7, 12)]
    )
    assert (b": tollway-usage" in reader.stop(USAGE)) is strip


def test_a_stream_whose_usage_is_told_as_it_goes_is_stopped_too() -> None:
    """VLLM's `continuous_usage_stats`: the text is not kept, what the chunks have in common is."""
    reader = OPENAI.stream_reader(strip_usage=False)
    reader.feed(event((0, "hi", None), usage={"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}))

    length, usage = chunks(reader.stop(USAGE))

    assert (length.id, length.choices[0].finish_reason) == ("chatcmpl-1", "length")
    assert usage.usage is not None


@pytest.mark.parametrize("sent", [b"", b"data: {\n\n", b": nothing yet\n\n"])
def test_a_stream_that_said_nothing_yet_ends_validly(sent: bytes) -> None:
    """Whatever came before, the ending can be parsed."""
    reader = OPENAI.stream_reader(strip_usage=True)
    reader.feed(sent)

    assert [chunk.choices[0].finish_reason for chunk in chunks(reader.stop(USAGE))] == ["length"]


def test_a_legacy_completion_ends_in_its_own_shape() -> None:
    """Its choices have a text where others have a delta."""
    reader = OPENAI.stream_reader(strip_usage=True)
    said = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    choice = {"index": 0, "text": "hi", "finish_reason": None}
    reader.feed(b"data: " + json.dumps(said | {"choices": [choice]}).encode() + b"\n\n")

    ended = reader.stop(USAGE)

    _, data, _, _ = ended.split(b"\n\n")
    assert json.loads(data.removeprefix(b"data: ")) == said | {
        "choices": [choice | {"text": "", "finish_reason": "length"}]
    }


def test_the_length_of_the_text_is_known_without_the_text() -> None:
    """In bytes, as the ratio is of tokens to bytes; nothing is left of it once the usage is known."""
    reader = OPENAI.stream_reader(strip_usage=True)
    reader.feed(event((0, "hé", None)) + event((1, "ho", None)))
    assert reader.text_bytes() == len("hého".encode())
    reader.feed(event((0, "y", None)))
    assert reader.text_bytes() == len("héhoy".encode())
    reader.feed(event(usage={"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}))
    assert reader.text_bytes() == 0
