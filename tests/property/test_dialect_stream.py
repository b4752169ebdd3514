"""A stream is read the same however the network cuts it, and no bytes can upset the reader (rows B9, F2)."""

import functools
import itertools
import json
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.dialects.openai_usage import usage_of
from gateway.dialects.registry import DIALECTS
from gateway.domain.usage import Usage
from tests.support import recordings

OPENAI = DIALECTS["openai"]
LINE_ENDS = (b"\n", b"\r\n", b"\r")


@functools.cache
def _stream(name: str, line_end: bytes, strip: bool) -> tuple[bytes, bytes, Usage]:
    """The end of a recorded stream, what is to come of it, and its usage."""
    events = recordings.events(name, line_end)[-6:]
    whole = b"".join(events)
    usage = usage_of(recordings.reported_usage(name, streamed=True))
    assert usage is not None
    if strip and name in recordings.USAGE_ALONE:
        events[-2] = OPENAI.usage_comment(usage)
    return whole, b"".join(events), usage


def _check(name: str, line_end: bytes, strip: bool, cuts: list[int]) -> None:
    whole, expected, usage = _stream(name, line_end, strip)
    reader = OPENAI.stream_reader(strip_usage=strip)
    bounds = [0, *sorted(cut % len(whole) for cut in cuts), len(whole)]

    sent = [reader.feed(whole[start:end]) for start, end in itertools.pairwise(bounds)]

    assert b"".join(sent) == expected
    assert reader.usage == usage
    assert reader.finished
    assert not reader.mid_event
    assert reader.end() == b""


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("name", recordings.NAMES)
def test_cut_at_every_byte(name: str, line_end: bytes, strip: bool) -> None:
    """Wherever one read ends and the next begins, the usage is read and the right bytes go on."""
    for cut in range(len(_stream(name, line_end, strip)[0])):
        _check(name, line_end, strip, [cut])


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("name", recordings.NAMES)
def test_byte_by_byte(name: str, strip: bool) -> None:
    """A network that delivers single bytes changes nothing."""
    for line_end in LINE_ENDS:
        _check(name, line_end, strip, list(range(len(_stream(name, line_end, strip)[0]))))


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(recordings.NAMES),
    line_end=st.sampled_from(LINE_ENDS),
    strip=st.booleans(),
    cuts=st.lists(st.integers(0, 10**6), max_size=30),
)
def test_cut_anywhere(name: str, line_end: bytes, strip: bool, cuts: list[int]) -> None:
    """However many cuts there are, and wherever."""
    _check(name, line_end, strip, cuts)


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("name", recordings.NAMES)
def test_whole_recordings_in_random_reads(name: str, strip: bool) -> None:
    """The whole of a recording, not just its end, in reads of every size: bytes out are bytes in but for the usage."""
    events = recordings.events(name)
    whole = b"".join(events)
    expected = b"".join(events[:-6]) + _stream(name, b"\n", strip)[1]
    for seed in range(10):
        source, at, sent = random.Random(seed), 0, b""
        reader = OPENAI.stream_reader(strip_usage=strip)
        while at < len(whole):
            size = source.choice((1, 7, 100, 400, 1460, 65_536))
            sent += reader.feed(whole[at : at + size])
            at += size

        assert sent + reader.end() == expected


_PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"data: ",
            b"\n",
            b"\r",
            b"\n\n",
            b"\r\n\r\n",
            b'"usage"',
            b'"usage":{',
            b'{"usage":{"prompt_tokens":',
            b'{"choices":[],"usage":null}',
            b"}}",
            b'"error"',
            b'{"error":1}',
            b"[DONE]",
            b"data: [DONE]\n\n",
            b"[" * 2000,
            b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n',
        ]
    ),
)


@settings(max_examples=500, deadline=None)
@given(reads=st.lists(_PIECES, max_size=25), strip=st.booleans())
@example(reads=[b"data: 1\r\r", b"\n\ndata: 2"], strip=True)
def test_no_bytes_upset_the_reader(reads: list[bytes], strip: bool) -> None:
    """Whatever an upstream sends as a stream passes whole, and nothing is raised into a caller's answer."""
    reader = OPENAI.stream_reader(strip_usage=strip)

    sent = b"".join([*[reader.feed(data) for data in reads], reader.end()])

    reader.text()
    whole = b"".join(reads)
    if not strip or b'"usage"' not in whole.replace(b'"usage":null', b""):
        assert sent == whole


@settings(max_examples=100, deadline=None)
@given(
    prompt=st.integers(1, 10**9),
    completion=st.integers(0, 10**9),
    text=st.text(),
    gap=st.sampled_from(["", " ", "  "]),
    strip=st.booleans(),
)
def test_any_usage_is_read_whatever_the_text(prompt: int, completion: int, text: str, gap: str, strip: bool) -> None:
    """Numbers of any size, spacing of any style, text of any content: what is charged is what was reported."""
    spoken = b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"
    report = (
        f'data: {{"choices":{gap}[],"usage":{gap}{{"prompt_tokens":{prompt},"completion_tokens":{completion}}}}}\n\n'
    )
    reader = OPENAI.stream_reader(strip_usage=strip)

    sent = reader.feed(spoken + report.encode())

    assert reader.usage == Usage(prompt, completion)
    assert sent == spoken + (OPENAI.usage_comment(Usage(prompt, completion)) if strip else report.encode())
