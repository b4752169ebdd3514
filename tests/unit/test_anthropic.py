"""The Anthropic dialect piece by piece: what is asked, what was used, how errors look (rows B1, B2, F3)."""

import base64
import json
import struct
import zlib
from typing import Any

import pytest

from gateway.dialects.anthropic_request import PAGE_TOKENS, PICTURE_TOKENS
from gateway.dialects.dialect import Ask
from gateway.dialects.registry import DIALECTS
from gateway.domain.decisions import Refused
from gateway.domain.faults import BODY_TOO_LARGE, INVALID_BODY, LIMITER_UNAVAILABLE, REVOKED_KEY, Fault, FaultKind
from gateway.domain.limits import Remedy
from gateway.domain.usage import Usage

ANTHROPIC = DIALECTS["anthropic"]
PATH = b"/v1/messages"


def ask(*content: Any, path: bytes = PATH, **fields: Any) -> Ask:
    """What a request with these content blocks and fields asks."""
    body = {"model": "m", "messages": [{"role": "user", "content": list(content)}], **fields}
    return ANTHROPIC.read_request(json.dumps(body).encode(), path)


def png(width: int, height: int, noise: int = 9_000) -> str:
    """A picture of that size, as base64."""
    head = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">II", width, height) + b"\x08\x02\0\0\0"
    return base64.b64encode(head + zlib.compress(bytes(noise), 0)).decode()


def block(kind: str, **source: str) -> dict[str, Any]:
    """A picture or a document."""
    return {"type": kind, "source": source}


def test_the_output_is_bounded_by_max_tokens() -> None:
    """B1: what is reserved for the answer is what the caller allows it to cost; thinking is inside it."""
    asked = ask({"type": "text", "text": "hi"}, max_tokens=300, stream=True, thinking={"budget_tokens": 200})
    assert (asked.model, asked.streamed, asked.max_output, asked.choices) == ("m", True, 300, 1)
    assert ask(max_tokens=0).max_output == 0
    assert ask().max_output is None


@pytest.mark.parametrize("path", [b"/v1/messages/count_tokens", b"/v1/messages/batches"])
def test_counting_tokens_costs_none(path: bytes) -> None:
    """F3: a question of how long a prompt is has no answer that costs tokens; a batch pays when it runs."""
    asked = ask({"type": "text", "text": "x" * 1000}, path=path)
    assert (asked.prompt_bytes, asked.max_output) == (0, 0)


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        (block("image", type="base64", media_type="image/png", data=png(750, 1000)), 1000),
        (block("image", data=png(750, 1000), media_type="image/png", type="base64"), 1000),
        (block("image", type="base64", media_type="image/png", data=png(9000, 9000)), 4784),
        (block("image", type="url", url="https://pictures.example/a.png"), PICTURE_TOKENS),
        (block("image", type="base64", data=base64.b64encode(b"\xff\xd8\xff" + bytes(9000)).decode()), PICTURE_TOKENS),
        (block("document", type="base64", data=base64.b64encode(b"%PDF-1.7" + bytes(9000)).decode()), PAGE_TOKENS),
        (block("document", type="base64", data=base64.b64encode(b"%PDF-1.7" + bytes(150_000)).decode()), 10_000),
        (block("document", type="file", file_id="file_1"), PAGE_TOKENS),
    ],
)
def test_media_are_priced_by_rule_and_not_by_length(content: dict[str, Any], tokens: int) -> None:
    """B1: a picture of a megabyte costs a thousand tokens; as text it would be refused on every plan."""
    around = len(json.dumps(content)) - len(content["source"].get("data", ""))
    assert ask(content).prompt_bytes - ask().prompt_bytes - around == pytest.approx(tokens * 4, abs=4 * 600)


def test_text_under_data_is_text() -> None:
    """A document of plain text travels under the same name as a picture, and is read by the model word for word."""
    text = "a word " * 5000
    asked = ask(block("document", type="text", media_type="text/plain", data=text))
    assert asked.prompt_bytes > len(text)


@pytest.mark.parametrize(
    ("body", "public"),
    [
        (b'{"max_tokens":"many"}', "max_tokens must be an integer."),
        (b'{"model":', "The request body is not valid JSON"),
        (b"[]", "The request body must be an object."),
    ],
)
def test_a_broken_body_is_told_where(body: bytes, public: str) -> None:
    """F3: the app's developer learns the field."""
    with pytest.raises(Fault) as caught:
        ANTHROPIC.read_request(body, PATH)
    assert caught.value.kind is INVALID_BODY
    assert caught.value.public.startswith(public)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 5, "output_tokens": 7}, Usage(5, 7)),
        (
            {"input_tokens": 5, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 300, "output_tokens": 7},
            Usage(325, 7, 300),
        ),
        (
            {"input_tokens": 5, "output_tokens": 70, "output_tokens_details": {"thinking_tokens": 60}},
            Usage(5, 70, 0, 60),
        ),
        (
            {
                "input_tokens": 23_000,
                "output_tokens": 1_000,
                "iterations": [
                    {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500},
                    {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000},
                ],
            },
            Usage(203_000, 4_500),
        ),
        (
            {
                "input_tokens": 12,
                "output_tokens": 30,
                "iterations": [
                    {"type": "message", "input_tokens": 10, "output_tokens": 0},
                    {"type": "fallback_message", "input_tokens": 12, "output_tokens": 30},
                ],
            },
            Usage(12, 30),
        ),
        ({"input_tokens": 12, "output_tokens": 30, "iterations": None}, Usage(12, 30)),
        ({"input_tokens": None, "output_tokens": -4}, None),
        ("plenty", None),
        (None, None),
    ],
)
def test_usage_is_the_sum_of_what_was_sampled(usage: Any, expected: Usage | None) -> None:
    """B2: the caches are input, thinking is output, and steps that the figures at the top leave out are added."""
    assert ANTHROPIC.read_usage(json.dumps({"content": [], "usage": usage}).encode()) == expected


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        (REVOKED_KEY, "authentication_error"),
        (INVALID_BODY, "invalid_request_error"),
        (BODY_TOO_LARGE, "request_too_large"),
        (LIMITER_UNAVAILABLE, "api_error"),
    ],
)
def test_a_fault_has_anthropics_shape(kind: FaultKind, shown: str) -> None:
    """F3: SDKs read type and message there, and people quote the request id."""
    assert json.loads(ANTHROPIC.fault_body(Fault(kind, "10.0.0.7 said no"), "req-1")) == {
        "type": "error",
        "error": {"type": shown, "message": kind.public},
        "request_id": "req-1",
    }


@pytest.mark.parametrize(
    ("remedy", "status", "kind"), [(Remedy.WAIT, 429, "rate_limit_error"), (Remedy.PAY, 402, "billing_error")]
)
def test_wait_and_pay_never_look_alike(remedy: Remedy, status: int, kind: str) -> None:
    """B1: an app that waits for a month's quota to come back hangs; one that raises on a full minute gives up early."""
    refused = Refused(0, (900,), 1, "tokens/day", 1000, 250, 90, remedy)
    assert ANTHROPIC.refusal_status(refused) == status
    assert json.loads(ANTHROPIC.refusal_body(refused, "req-1"))["error"]["type"] == kind


def test_the_text_of_an_answer_is_all_that_the_model_wrote() -> None:
    """B1: where no usage was reported, this is counted: thinking, words and the arguments of calls."""
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "text", "text": "one"},
        {"type": "tool_use", "name": "weather", "input": {"city": "Rome"}},
    ]
    assert ANTHROPIC.answer_text(json.dumps({"content": content}).encode()) == 'hm\none\nweather{"city":"Rome"}'
    assert ANTHROPIC.answer_text(b"<html>") == ""


def test_a_stream_without_usage_is_counted_by_its_text() -> None:
    """B1: compatible servers leave the usage out; the answer is no gift for that. What was told of the input holds."""
    reader = ANTHROPIC.stream_reader(strip_usage=False)
    for event in (
        {"type": "message_start", "message": {"usage": {"input_tokens": 40, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm "}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "höre"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
    ):
        reader.feed(f"data: {json.dumps(event)}\n\n".encode())
    assert (reader.text(), reader.text_bytes()) == ('hm höre{"a"', 12)
    assert (reader.usage, reader.told) == (None, Usage(40, 1))


def test_an_error_inside_a_stream_is_seen() -> None:
    """F5: the upstream was overloaded half way; that is its failure and no short answer."""
    reader = ANTHROPIC.stream_reader(strip_usage=False)
    reader.feed(b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n')
    reader.end()
    assert reader.error_seen
    assert not reader.broken_off
