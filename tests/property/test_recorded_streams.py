"""Anthropic's and Gemini's answers are counted exactly, however the network cuts them (rows B2, F3)."""

import functools
import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.dialect import StreamReader
from gateway.dialects.registry import DIALECTS
from gateway.domain.usage import Usage
from tests.support import wire_recordings as wire

LINE_ENDS = (b"\n", b"\r\n", b"\r")
NAMES = sorted(wire.STREAMED)
EDGE_BYTES = 1_500
"""A longer recording is cut at every byte of its first and last so many, and at every 31st between."""


@functools.cache
def _stream(name: str, line_end: bytes = b"") -> bytes:
    return wire.array(name) if line_end == b"[" else b"".join(wire.events(name, line_end))


def _framings(name: str) -> tuple[bytes, ...]:
    return (*LINE_ENDS, b"[") if wire.dialect_of(name) == "gemini" else LINE_ENDS


def read(name: str, reads: Iterable[bytes]) -> StreamReader:
    """A reader that was fed these reads to their end, and passed every byte of them in its turn."""
    reader = DIALECTS[wire.dialect_of(name)].stream_reader(strip_usage=False)
    came = list(reads)
    sent = [reader.feed(data) for data in came]
    assert b"".join([*sent, reader.end()]) == b"".join(came)
    return reader


def _check(name: str, line_end: bytes, cuts: Iterable[int]) -> None:
    whole = _stream(name, line_end)
    bounds = [0, *sorted(cut % len(whole) for cut in cuts), len(whole)]
    reader = read(name, [whole[start:end] for start, end in itertools.pairwise(bounds)])
    assert reader.usage == wire.STREAMED[name]
    assert reader.finished
    assert not reader.broken_off
    assert not reader.error_seen


@pytest.mark.parametrize("name", sorted(wire.WHOLE))
def test_a_whole_answer_is_counted_as_the_provider_counted_it(name: str) -> None:
    """B2: all steps of an answer, its thinking too; who pays by it pays what the provider charges."""
    assert DIALECTS[wire.dialect_of(name)].read_usage(wire.whole(name)) == wire.WHOLE[name]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", NAMES)
def test_cut_at_every_byte(name: str) -> None:
    """Wherever one read ends and the next begins, the usage is that of the recording."""
    for line_end in _framings(name):
        length = len(_stream(name, line_end))
        for cut in range(length):
            if min(cut, length - cut) < EDGE_BYTES or cut % 31 == 0:
                _check(name, line_end, [cut])


@pytest.mark.parametrize("name", NAMES)
def test_byte_by_byte(name: str) -> None:
    """A network that delivers single bytes changes nothing."""
    for line_end in _framings(name):
        _check(name, line_end, range(len(_stream(name, line_end))))


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(NAMES), framing=st.integers(0, 3), cuts=st.lists(st.integers(0, 10**6), max_size=30))
def test_cut_anywhere(name: str, framing: int, cuts: list[int]) -> None:
    """However many cuts there are, and wherever."""
    framings = _framings(name)
    _check(name, framings[framing % len(framings)], cuts)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_cut_short_is_told_from_a_whole_one(name: str) -> None:
    """B1, F5: half an answer whose connection ends cleanly is no whole one, and what was said of it can be counted."""
    events = wire.events(name)
    reader = read(name, events[: -(-len(events) // 2)])
    assert reader.broken_off or reader.usage is not None
    if wire.dialect_of(name) == "anthropic":
        assert reader.usage is None
        assert reader.told is not None
        assert not reader.finished


_DECOYS = st.sampled_from(
    [
        '"usage":{"input_tokens":1,"output_tokens":1}',
        '{"type":"message_delta","usage":{"input_tokens":7,"output_tokens":7}}',
        '\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n',
        'data: {"type":"error","error":{}}\n\n',
        '"usageMetadata":{"promptTokenCount":1,"totalTokenCount":1}',
        '\r\n\r\ndata: {"usageMetadata":{"promptTokenCount":1}}\r\n\r\n',
        '"}]}\n,\r\n{"usageMetadata":{"promptTokenCount":5}}\n]',
        '\\"usage\\"',
        "]}{[",
    ]
)
_TEXTS = st.lists(st.one_of(_DECOYS, st.text(max_size=20)), min_size=1, max_size=4).map("".join)
_COUNTS = st.integers(1, 10**9)


@settings(max_examples=150, deadline=None)
@given(text=_TEXTS, before=_COUNTS, written=_COUNTS, cached=_COUNTS, output=_COUNTS, size=st.integers(1, 400))
def test_no_text_is_taken_for_a_report(
    text: str, before: int, written: int, cached: int, output: int, size: int
) -> None:
    """A model that writes what a report looks like, in a text or as a tool's input, changes nobody's bill."""
    started = {"input_tokens": 3, "output_tokens": 1, "cache_read_input_tokens": cached}
    told = {"input_tokens": before, "cache_creation_input_tokens": written, "output_tokens": output}
    tool = {"type": "tool_use", "name": "t", "input": {"usage": {"output_tokens": 5}, "error": text, text: "x"}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"content": [], "usage": started}},
        {"type": "content_block_start", "index": 0, "content_block": tool},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": told},
        {"type": "message_stop"},
    ]
    whole = b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
    reader = read("anthropic/", [whole[at : at + size] for at in range(0, len(whole), size)])

    assert reader.usage == Usage(before + written + cached, output, cached)
    assert not reader.error_seen


@settings(max_examples=150, deadline=None)
@given(text=_TEXTS, prompt=_COUNTS, spoken=_COUNTS, array=st.booleans(), size=st.integers(1, 400))
def test_no_text_is_taken_for_a_gemini_report(text: str, prompt: int, spoken: int, array: bool, size: int) -> None:
    """The same for Gemini, in both framings; a call's arguments may even have the very names of a report."""
    call = {"functionCall": {"name": "f", "args": {"usageMetadata": {"promptTokenCount": 9}, text: [text]}}}
    chunks = [
        {"candidates": [{"content": {"parts": [{"text": text}]}}], "usageMetadata": {"promptTokenCount": prompt}},
        {
            "candidates": [{"content": {"parts": [call]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": prompt, "candidatesTokenCount": spoken},
        },
        {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}]},
    ]
    spelled = [json.dumps(chunk).encode() for chunk in chunks]
    whole = b"[" + b",\r\n".join(spelled) + b"]" if array else b"".join(b"data: %b\r\n\r\n" % one for one in spelled)
    reader = read("gemini/", [whole[at : at + size] for at in range(0, len(whole), size)])

    assert reader.usage == Usage(prompt, spoken)
    assert reader.finished


@settings(max_examples=200, deadline=None)
@given(reads=st.lists(st.one_of(st.binary(max_size=40), _DECOYS.map(str.encode)), max_size=20), pad=st.booleans())
@pytest.mark.parametrize("name", ["anthropic/", "gemini/"])
def test_no_bytes_upset_the_reader(name: str, reads: list[bytes], pad: bool) -> None:
    """Whatever an upstream sends passes as it is, and nothing is raised into a caller's answer."""
    reader = read(name, [b"[" * pad + data for data in reads])
    reader.text()
    assert reader.text_bytes() >= 0
    assert isinstance(reader.mid_event, bool)
