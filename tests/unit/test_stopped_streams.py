"""A stream that the gateway ends is one that ran into its maximum of tokens, in Anthropic's and in Gemini's shape."""

import json

import pytest

from gateway.dialects.registry import DIALECTS
from gateway.domain.usage import Usage
from tests.support import wire_recordings as wire

USAGE = Usage(12, 7, 5, 3)


@pytest.mark.parametrize("name", ["anthropic/anthropic-text", "gemini/google-text"])
def test_a_stopped_stream_reads_like_one_that_ended(name: str) -> None:
    """B1: what is put at its end is whole, says why it ended, and tells the usage that is charged."""
    dialect = DIALECTS[wire.dialect_of(name)]
    stopped, after = dialect.stream_reader(strip_usage=False), dialect.stream_reader(strip_usage=False)
    began = wire.events(name)[: 4 if "anthropic" in name else 2]
    for event in began:
        stopped.feed(event)
    tail = stopped.stop(USAGE)
    for event in (*began, tail):
        after.feed(event)
    after.end()

    payloads = [json.loads(line[6:]) for line in tail.split(b"\n") if line.startswith(b"data: ")]
    assert after.finished
    assert not after.broken_off
    assert after.usage is not None
    assert (after.usage.input_tokens, after.usage.output_tokens, after.usage.cached_tokens) == (12, 7, 5)
    if "anthropic" in name:
        assert [one["type"] for one in payloads] == ["content_block_stop", "message_delta", "message_stop"]
        assert payloads[1]["delta"]["stop_reason"] == "max_tokens"
    else:
        assert [one["finishReason"] for one in payloads[0]["candidates"]] == ["MAX_TOKENS"]
