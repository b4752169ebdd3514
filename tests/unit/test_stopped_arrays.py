"""A Gemini stream that comes as one JSON array is ended like one of events."""

import json

from gateway.dialects.registry import DIALECTS
from gateway.domain.usage import Usage
from tests.support import wire_recordings as wire

NAME = "gemini/google-text"


def test_a_stopped_array_is_closed() -> None:
    """B5: behind the last whole element comes the one that says why it ended, and the array's end."""
    reader = DIALECTS["gemini"].stream_reader(strip_usage=False)
    first = json.dumps(json.loads(wire.payloads(NAME)[0]), indent=2).encode()
    half = first[: len(first) // 2]
    assert reader.feed(b"[" + half) == b""
    assert reader.close_array(b"{}") == b"[{}]"
    sent = reader.feed(first[len(half) :] + b",\r\n" + half)
    told = json.loads(sent + reader.stop(Usage(12, 7, 5, 3)))
    assert told[0] == json.loads(first)
    assert told[1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert told[1]["usageMetadata"]["totalTokenCount"] == 19


def test_a_stream_of_events_is_no_array() -> None:
    """No dialect's events get an array's end."""
    for dialect in DIALECTS.values():
        reader = dialect.stream_reader(strip_usage=False)
        reader.feed(b"data: {}\n\n")
        assert reader.close_array(b"{}") == b""
