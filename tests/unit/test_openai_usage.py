"""The usage that whole answers report is read as the provider means it (row B9)."""

import json
from typing import Any

import pytest

from gateway.dialects.openai_usage import read_usage
from gateway.domain.usage import Usage
from tests.support import recordings


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("deepseek-tool-call", Usage(339, 92, 320, 48)),
        ("groq-tool-call", Usage(218, 15, 0, 0)),
        ("openai-completion-text", Usage(14, 16, 0, 0)),
        ("openai-text", Usage(16, 363, 0, 0)),
        ("xai-tool-call", Usage(307, 281, 244, 255)),
    ],
)
def test_recorded_answers(name: str, usage: Usage) -> None:
    """What providers really sent is read to the token; the total agrees with theirs."""
    assert read_usage(recordings.whole(name)) == usage
    assert usage.tokens == recordings.reported_usage(name, streamed=False)["total_tokens"]


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 7}, Usage(5, 7)),
        ({"prompt_tokens": 5, "completion_tokens": None}, Usage(5, 0)),
        ({"prompt_tokens": 5, "total_tokens": 5}, Usage(5, 0)),
        ({"prompt_tokens": "5", "completion_tokens": 7.0}, Usage(5, 7)),
        ({"prompt_tokens": -5, "completion_tokens": 7}, Usage(0, 7)),
        ({"prompt_tokens": True, "completion_tokens": 7.5}, None),
        ({"prompt_tokens": 5, "completion_tokens": 26, "total_tokens": 258}, Usage(5, 253)),
        ({"prompt_tokens": 5, "completion_tokens": 26, "total_tokens": 3}, Usage(5, 26)),
        ({"prompt_tokens": 5, "prompt_tokens_details": None, "completion_tokens_details": []}, Usage(5)),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(5, 0, 5)),
        ({"prompt_tokens": 5, "prompt_cache_hit_tokens": 4}, Usage(5, 0, 4)),
        ({"input_tokens": 5, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 2}}, Usage(5, 7, 2)),
        ({"prompt_tokens": None, "input_tokens": 5, "completion_tokens": 0, "output_tokens": 7}, Usage(5, 7)),
        (
            {"input_tokens": 5, "prompt_tokens_details": None, "input_tokens_details": {"cached_tokens": 2}},
            Usage(5, 0, 2),
        ),
        ({"prompt_tokens": 5, "cached_tokens": 4}, Usage(5, 0, 4)),
        ({"prompt_tokens": 5, "completion_tokens": 7, "reasoning_tokens": 3}, Usage(5, 7, 0, 3)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
        ({"prompt_tokens": 10**30, "completion_tokens": "9" * 400}, None),
        ({}, None),
        (None, None),
        ([1], None),
        ("5", None),
    ],
)
def test_odd_reports(report: Any, usage: Usage | None) -> None:
    """Nulls, text, negatives and zeros come from real servers: they neither fail a request nor make it free."""
    assert read_usage(json.dumps({"choices": [], "usage": report}).encode()) == usage


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"<html>", b'{"usage":' + b"[" * 100_000, b"\xff"])
def test_what_is_no_answer_has_no_usage(body: bytes) -> None:
    """An upstream's error page must not become a fault of ours after the answer was paid for."""
    assert read_usage(body) is None
