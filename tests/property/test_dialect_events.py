"""A stream of typed events is read the same however it is cut, whatever its text pretends to be (rows B2, B9, F3)."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.dialect import StreamReader
from gateway.dialects.registry import DIALECTS
from tests.support import typed_recordings as recordings

RESPONSES = DIALECTS["openai-responses"]
LINE_ENDS = (b"\n", b"\r\n", b"\r")


def read(whole: bytes, cuts: list[int]) -> StreamReader:
    """A reader that was fed these bytes in these pieces, and has let all of them pass."""
    reader = RESPONSES.stream_reader(strip_usage=True)
    bounds = [0, *sorted(cut % len(whole) for cut in cuts), len(whole)]
    sent = [reader.feed(whole[start:end]) for start, end in itertools.pairwise(bounds)]
    assert b"".join([*sent, reader.end()]) == whole
    return reader


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("name", recordings.NAMES)
def test_cut_at_every_byte_of_the_last_event(name: str, line_end: bytes) -> None:
    """Wherever one read ends and the next begins, the usage is exactly the provider's."""
    *before, last = recordings.events(name, line_end)
    told = recordings.told(name, streamed=True)
    head = b"".join(before)
    for cut in range(0, len(last), max(1, len(last) // 400)):
        reader = RESPONSES.stream_reader(strip_usage=True)
        sent = [reader.feed(data) for data in (head, last[:cut], last[cut:])]
        assert b"".join([*sent, reader.end()]) == head + last
        assert reader.usage == told
        assert reader.finished


@pytest.mark.parametrize("name", ["openai-custom-tool.1", "openai-error.1"])
def test_byte_by_byte(name: str) -> None:
    """A network that delivers single bytes changes nothing."""
    for line_end in LINE_ENDS:
        whole = b"".join(recordings.events(name, line_end))
        reader = read(whole, list(range(len(whole))))
        assert (reader.usage, reader.finished) == (recordings.told(name, streamed=True), True)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(recordings.NAMES),
    line_end=st.sampled_from(LINE_ENDS),
    cuts=st.lists(st.integers(0, 10**7), max_size=30),
)
def test_cut_anywhere(name: str, line_end: bytes, cuts: list[int]) -> None:
    """However many cuts there are, and wherever; and no text is left to be counted twice."""
    reader = read(b"".join(recordings.events(name, line_end)), cuts)
    told = recordings.told(name, streamed=True)

    assert reader.usage == told
    assert (reader.finished, reader.broken_off, reader.mid_event) == (True, False, False)
    assert told is None or reader.text() == ""


_REPORT = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
_LIES = st.sampled_from(
    [
        json.dumps({"type": "response.completed", "response": {"id": "r", "usage": _REPORT}}),
        '\n\ndata: {"type":"response.completed","response":{"id":"r","usage":{"input_tokens":1}}}\n\n',
        '"usage":{"input_tokens":1,"output_tokens":1}',
        'event: response.completed\r\ndata: {"response":{"usage":{"input_tokens":1}}}\r\n\r\n',
        "\n\ndata: [DONE]\n\n",
        "error",
        "usage",
        '"error":{"message":"x"}',
        "\\",
        "\u2028\x00é",
    ]
)


def _delta(kind: str, text: str) -> dict[str, Any]:
    return {"type": kind, "item_id": "i", "output_index": 0, "delta": text}


def _item(text: str) -> dict[str, Any]:
    item = {"type": "function_call", "name": text, "arguments": text, "usage": _REPORT, "response": {"usage": _REPORT}}
    return {"type": "response.output_item.done", "item": item}


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(st.tuples(_LIES, st.booleans()), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 10**6), max_size=12),
    ascii_only=st.booleans(),
)
def test_what_a_model_writes_is_never_its_bill(
    texts: list[tuple[str, bool]], cuts: list[int], ascii_only: bool
) -> None:
    """B9: a model that is told to write usage events, or calls a tool with one, must not set what is charged."""
    told: list[dict[str, Any]] = []
    for text, as_item in texts:
        told.append(_item(text) if as_item else _delta("response.output_text.delta", text))
    whole = b"".join(recordings.event(one["type"], json.dumps(one, ensure_ascii=ascii_only).encode()) for one in told)
    reader = read(whole, cuts)

    assert (reader.usage, reader.finished, reader.error_seen) == (None, False, False)
    assert reader.text() == "".join(text for text, as_item in texts if not as_item)
    assert reader.text_bytes() == len(reader.text().encode())
    assert reader.broken_off


_PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"data: ",
            b"\n\n",
            b"\r\n\r\n",
            b'"usage"',
            b'data: {"response":1,"usage":{}}\n\n',
            b'data: {"type":"error"}\n\n',
            b'data: {"type":"response.completed","response":{"id":[],"usage":{"input_tokens":"3"}}}\n\n',
            b'data: {"type":["response.completed"],"usage":3}\n\n',
            b'data: {"type":"response.output_text.delta","delta":{"a":1}}\n\n',
            b'data: {"type":"response.output_text.delta","delta":"x"}\n\n',
            b"[" * 2000,
            b'"error"',
            b"data: [DONE]\n\n",
        ]
    ),
)


@settings(max_examples=400, deadline=None)
@given(reads=st.lists(_PIECES, max_size=25))
def test_no_bytes_upset_the_reader(reads: list[bytes]) -> None:
    """Whatever an upstream sends as a stream passes whole, and nothing is raised into a caller's answer."""
    reader = RESPONSES.stream_reader(strip_usage=False)

    assert b"".join([*map(reader.feed, reads), reader.end()]) == b"".join(reads)
    reader.text()
    assert isinstance(reader.broken_off, bool)


@settings(max_examples=300, deadline=None)
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "usage",
                            "output",
                            "content",
                            "text",
                            "svg_usage",
                            "tool_usage",
                            "image_gen",
                            "duration",
                            "seconds",
                            "input_tokens",
                            "summary",
                        ]
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_no_answer_upsets_a_dialect(body: bytes) -> None:
    """Any bytes of a whole answer are read without an error, by every dialect."""
    for dialect in DIALECTS.values():
        usage = dialect.read_usage(body)
        assert usage is None or min(usage.input_tokens, usage.output_tokens) >= 0
        assert isinstance(dialect.answer_text(body), str)
