"""A streamed answer in passing: its usage is read (rows B2, B9), and what the caller gets is what was sent (F2)."""

import json
from typing import Any

import pytest

from gateway.dialects.dialect import StreamReader
from gateway.dialects.registry import DIALECTS
from gateway.dialects.sse import MAX_EVENT_BYTES
from gateway.domain.usage import Usage
from tests.support import recordings

OPENAI = DIALECTS["openai"]
REPORT = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
USAGE = Usage(5, 7)


def event(payload: Any, end: bytes = b"\n\n") -> bytes:
    """One event as a provider frames it."""
    return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + end


def chunk(text: str | None = "hi", finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chunk with one choice."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **fields}


DONE = b"data: [DONE]\n\n"
ALONE = {"choices": [], "usage": REPORT}
COMMENT = OPENAI.usage_comment(USAGE)


def read(*reads: bytes, strip: bool = True) -> tuple[StreamReader, bytes]:
    """A reader fed with these reads to the end, and what it let through."""
    reader = OPENAI.stream_reader(strip_usage=strip)
    sent = [reader.feed(data) for data in reads]
    return reader, b"".join([*sent, reader.end()])


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("deepseek-tool-call", Usage(339, 83, 320, 39)),
        ("groq-tool-call", Usage(210, 15, 0, 0)),
        ("openai-text", Usage(16, 300, 0, 0)),
        ("xai-tool-call", Usage(307, 253, 306, 227)),
    ],
)
@pytest.mark.parametrize("strip", [True, False])
def test_recorded_streams(name: str, usage: Usage, strip: bool) -> None:
    """What providers really streamed is read to the token, and only a usage chunk of its own is taken out."""
    events = recordings.events(name)
    reader, sent = read(*events, strip=strip)

    if strip and name in recordings.USAGE_ALONE:
        events[-2] = OPENAI.usage_comment(usage)
    assert sent == b"".join(events)
    assert reader.usage == usage
    assert usage.tokens == recordings.reported_usage(name, streamed=True)["total_tokens"]
    assert reader.finished
    assert not reader.error_seen


def test_ordinary_reads_pass_as_the_same_object() -> None:
    """A read that tells nothing new is neither copied nor decoded: that is the gateway's speed."""
    for strip in (True, False):
        reader = OPENAI.stream_reader(strip_usage=strip)
        for data in recordings.events("openai-text")[:-2]:
            assert reader.feed(data) is data


def test_half_an_event_is_held_back() -> None:
    """No caller can act on half an event, and an SDK's parser would stumble over one that is never ended."""
    whole = event(chunk())
    for strip in (True, False):
        reader = OPENAI.stream_reader(strip_usage=strip)

        assert reader.feed(whole[:20]) == b""
        assert not reader.mid_event
        assert reader.feed(whole[20:]) == whole


def test_nothing_is_put_inside_an_event_too_long_to_be_held() -> None:
    """F1: a picture of many megabytes passes in pieces, and a sign of life or a stop waits until it has ended."""
    reader = OPENAI.stream_reader(strip_usage=False)
    piece = b"data: " + b"x" * MAX_EVENT_BYTES

    assert reader.feed(piece) == piece
    assert reader.mid_event
    assert reader.feed(b"y") + reader.feed(b"\n\n") == b"y\n\n"
    assert not reader.mid_event


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n"])
def test_every_line_end_is_understood(end: bytes) -> None:
    """Providers differ in line ends; the usage chunk is taken out of each kind of stream."""
    reader = OPENAI.stream_reader(strip_usage=True)
    sent = reader.feed(event(chunk(), end) + event(ALONE, end) + b"data: [DONE]" + end)

    assert sent == event(chunk(), end) + COMMENT + b"data: [DONE]" + end
    assert reader.usage == USAGE
    assert reader.finished


@pytest.mark.parametrize(
    "framed",
    [
        b'data:{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\n',
        b'data: {"choices" : [ ],\ndata: "usage" :\ndata:  {"prompt_tokens":5,"completion_tokens":7}}\n\n',
        b': ping\nevent: message\nid: 1\ndata: {"usage": {"prompt_tokens":5,"completion_tokens":7}}\n\n',
        b'\xef\xbb\xbfdata: {"usage":{"prompt_tokens":5,"completion_tokens":7},"choices":null}\n\n',
    ],
)
def test_odd_framing_of_the_usage_chunk(framed: bytes) -> None:
    """Whatever the event stream format allows around the usage, it is found and taken out."""
    reader, sent = read(event(chunk()), framed, DONE)

    assert reader.usage == USAGE
    assert sent == event(chunk()) + COMMENT + DONE


def test_usage_in_the_text_is_text() -> None:
    """A model that writes about usage chunks, in JSON, must not set its own bill."""
    told = 'the chunk is {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\ndata: [DONE]\n\n'
    spoken = event(chunk(told)) + event(
        {"choices": [{"usage": REPORT, "delta": {"usage": REPORT}}], "x": {"usage": {}}}
    )
    reader, sent = read(spoken)

    assert sent == spoken
    assert reader.usage is None
    assert not reader.finished
    assert reader.text() == told


def test_the_usage_in_groqs_own_place_is_read() -> None:
    """Groq tells it there where nobody asked; in both places it counts once, and the chunk stays."""
    told = event(chunk(None, "stop", x_groq={"id": "r", "usage": REPORT}))
    reader, sent = read(event(chunk()), told, DONE)

    assert sent == event(chunk()) + told + DONE
    assert reader.usage == USAGE


def test_the_last_usage_counts_and_choices_are_never_taken_out() -> None:
    """Some providers tell the use so far in every chunk: the last is the whole, and each chunk carries text."""
    reads = [event(chunk(usage={"prompt_tokens": 5, "completion_tokens": count})) for count in (1, 2, 7)]
    reader, sent = read(*reads)

    assert sent == b"".join(reads)
    assert reader.usage == USAGE
    assert not reader.finished


def test_chunks_without_choices_but_without_usage_stay() -> None:
    """Azure begins with the prompt's filter results and no choices: the caller gets them."""
    filtered = event({"choices": [], "prompt_filter_results": [{}], "usage": None})

    assert read(filtered)[1] == filtered


def test_a_usage_chunk_of_zeros_is_taken_out_but_is_no_usage() -> None:
    """Zeros are no count: the answer is counted by other means, and the caller didn't ask for the chunk."""
    zeros = event({"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}})
    reader, sent = read(event(chunk("hello")), zeros, DONE)

    assert sent == event(chunk("hello")) + DONE
    assert reader.usage is None
    assert reader.text() == "hello"


@pytest.mark.parametrize(
    ("reads", "finished"),
    [
        ([event(chunk()), DONE], True),
        ([event(chunk()), DONE + b": bye\n\n"], True),
        ([event(chunk()), b"data: [DONE]"], True),
        ([event(chunk()), event(chunk(None, "stop"))], True),
        ([event(chunk(None, "stop")), event(ALONE)], True),
        ([event(chunk()), event(chunk(None, "stop", usage=REPORT))], True),
        ([event(chunk())], False),
        ([event(chunk(usage=REPORT))], False),
        ([event(chunk()), event(chunk(None, "stop"))[:-5]], False),
        ([], False),
    ],
)
def test_the_end_is_told_from_a_cut(reads: list[bytes], finished: bool) -> None:
    """An answer that came to its end, with or without a terminator, isn't told of as cut, and the other way round."""
    for strip in (True, False):
        assert read(*reads, strip=strip)[0].finished is finished


def test_with_two_choices_the_end_is_that_of_both() -> None:
    """With n = 2 one finished choice is no finished answer."""
    both = event(chunk()) + event({"choices": [{"index": 1, "delta": {"content": "yo"}}]})
    first = event(chunk(None, "stop"))
    second = event({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]})

    assert not read(both, first)[0].finished
    assert read(both, first, second)[0].finished


def test_the_terminator_is_known_before_the_end() -> None:
    """A caller that leaves right after the terminator leaves a finished answer."""
    reader = OPENAI.stream_reader(strip_usage=True)
    reader.feed(event(chunk()) + DONE)

    assert reader.finished


@pytest.mark.parametrize("error", [{"message": "overloaded"}, "overloaded"])
def test_an_error_inside_the_stream_is_remembered(error: Any) -> None:
    """An upstream that breaks off with an error event did not finish, though HTTP says 200."""
    told = event({"error": error})
    reader, sent = read(event(chunk(error=None)), told)

    assert sent.endswith(told)
    assert reader.error_seen
    assert not reader.finished


def test_an_event_cut_by_the_end_is_handed_out() -> None:
    """Bytes held back when the upstream ends go on: the caller sees what the upstream sent."""
    cut = event(chunk())[:30]

    assert read(event(chunk()), cut)[1] == event(chunk()) + cut


def test_an_endless_event_is_not_held() -> None:
    """An upstream that never ends an event can't fill the memory: it passes in pieces, and the stream is read on."""
    reader = OPENAI.stream_reader(strip_usage=True)
    start, sent = b'data: {"x":"', b""
    sent += reader.feed(start)
    for _ in range(40):
        sent += reader.feed(b"a" * 65_536)
    assert len(sent) >= 40 * 65_536 + len(start) - MAX_EVENT_BYTES

    sent += reader.feed(b'"}\n\n' + event(ALONE) + DONE) + reader.end()

    assert sent == start + b"a" * (40 * 65_536) + b'"}\n\n' + COMMENT + DONE
    assert reader.usage == USAGE


def test_the_comment_is_no_event() -> None:
    """SDKs skip the comment, apps that look for it read JSON."""
    assert COMMENT.startswith(b": tollway-usage {")
    assert json.loads(COMMENT.removeprefix(b": tollway-usage ")) == {
        "input_tokens": 5,
        "output_tokens": 7,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
    }


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize(
    "told",
    [
        [ALONE, "[DONE]"],
        ["[DONE]", ALONE],
        [{"error": {"message": "overloaded"}}, "[DONE]", chunk("", "stop")],
        ["[DONE]", {"error": {"message": "overloaded"}}],
        [chunk(usage=None), ALONE, chunk(usage=None), "[DONE]"],
        [chunk(usage=None), chunk("", "stop", usage=REPORT), "[DONE]"],
    ],
)
def test_a_burst_is_read_like_its_events_one_by_one(told: list[Any], end: bytes, strip: bool) -> None:
    """B2: a fast upstream sends all in one read, of which only what is notable is cut: it must tell the same."""
    payloads = [chunk("a", usage=None), *[chunk("b")] * 9, *told, chunk("c")]
    events = [b"data: " + (b"[DONE]" if each == "[DONE]" else event(each, b"")[6:]) + end for each in payloads]
    burst, sent = read(b"".join(events), strip=strip)
    single, sent_singly = read(*events, strip=strip)

    assert (burst.usage, burst.finished, burst.error_seen) == (single.usage, single.finished, single.error_seen)
    assert sent == sent_singly
    assert burst.text() == single.text()
