"""The text of an answer whose usage nobody told: all that a model wrote, for the tokenizer (row B9)."""

import json
import tracemalloc
from typing import Any

import pytest

from gateway.dialects.kept_text import BATCH_BYTES, MAX_TEXT_CHARS, KeptText
from gateway.dialects.openai_text import Choices, answer_text
from tests.support import recordings


def _spoken(name: str) -> str:
    """The same by plain means: every string that a recorded stream's deltas carry."""
    text = ""
    for payload in recordings.payloads(name):
        for choice in json.loads(payload)["choices"]:
            delta = choice.get("delta", {"content": choice.get("text")})
            text += (delta.get("reasoning_content") or "") + (delta.get("content") or "")
            for call in delta.get("tool_calls") or ():
                text += call["function"].get("name", "") + call["function"].get("arguments", "")
    return text


@pytest.mark.parametrize("name", recordings.NAMES)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_recorded_streams(name: str, line_end: bytes) -> None:
    """Content, reasoning, tool names and arguments are all there, in every batch and framing."""
    text = KeptText(Choices().read)
    for event in recordings.events(name, line_end):
        text.add(event)

    assert text.text() == _spoken(name)
    assert text.text() == _spoken(name)


@pytest.mark.parametrize("name", recordings.NAMES)
def test_recorded_answers(name: str) -> None:
    """A whole answer's text is its messages' text."""
    for choice in json.loads(recordings.whole(name))["choices"]:
        message = choice.get("message", {"content": choice.get("text")})
        text = (message.get("reasoning_content") or "") + (message.get("content") or "")
        text += "".join(
            call["function"]["name"] + call["function"]["arguments"] for call in message.get("tool_calls", ())
        )

        assert answer_text(recordings.whole(name)) == text


def _answer(*messages: dict[str, Any]) -> bytes:
    return json.dumps({"choices": [{"message": message} for message in messages]}).encode()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (_answer({"content": "a"}, {"content": "b"}), "a\nb"),
        (_answer({"content": None, "refusal": "no"}), "no"),
        (_answer({"reasoning": "r", "reasoning_content": "r", "content": "a"}), "ra"),
        (_answer({"function_call": {"name": "f", "arguments": "{}"}}), "f{}"),
        (_answer({"role": "assistant", "content": [{"type": "text", "text": "a"}, {"thinking": ["b"]}]}), "ab"),
        (b'{"choices":[{"text":"old"}]}', "old"),
        (b'{"choices":[{"index":null,"text":"odd","finish_reason":5}]}', "odd"),
        (b'{"choices":5}', ""),
        (b'{"choices":[5]}', ""),
        (b"[]", ""),
        (b"<html>", ""),
        (b'{"choices":[' + b"[" * 100_000, ""),
    ],
)
def test_odd_answers(body: bytes, text: str) -> None:
    """Whatever an upstream calls an answer, its text is taken and nothing is raised."""
    assert answer_text(body) == text


def test_deep_content_is_no_recursion() -> None:
    """Content nested as deep as JSON is read must not exhaust the stack of a settle."""
    for depth in (100, 900, 950, 990):
        body = b'{"choices":[{"message":{"content":' + b"[" * depth + b'"x"' + b"]" * depth + b"}}]}"

        assert answer_text(body) in {"x", ""}


def test_events_between_and_broken_ones_lose_only_themselves() -> None:
    """Comments, errors and garbage in a stream don't hide the text around them."""
    text = KeptText(Choices().read)
    good = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    text.add(
        good + b": ping\n\n" + b"data: {broken\n\n" + b'data: {"choices":[{"delta":{"content":["b"]}}]}\n\n' + good
    )

    assert text.text() == "aba"


def test_a_long_stream_is_held_as_text_only() -> None:
    """Thousands of open streams fit: of each, one batch of bytes and the text are held, not the bytes of all."""
    event = recordings.events("openai-text")[5]
    text = KeptText(Choices().read)
    tracemalloc.start()
    for _ in range(3000):
        text.add(bytes(bytearray(event)))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert 3000 * len(event) > 900_000
    assert held < 4 * BATCH_BYTES
    text.drop()
    assert text.text() == ""


def test_the_text_is_bounded() -> None:
    """A stream that never ends can't fill the memory with its text."""
    text = KeptText(Choices().read)
    event = b'data: {"choices":[{"delta":{"content":"' + b"x" * 60_000 + b'"}}]}\n\n'
    for _ in range(100):
        text.add(event)

    assert MAX_TEXT_CHARS <= len(text.text()) <= MAX_TEXT_CHARS + 60_000
