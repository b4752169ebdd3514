"""The Responses API: what a request holds, what its answers are charged, how its streams end (rows B1, B2, F3)."""

import json
from typing import Any

import pytest
from openai.types.responses import ResponseErrorEvent, ResponseIncompleteEvent

from gateway.dialects.dialect import Ask, StreamReader
from gateway.dialects.embedded_media import BYTES_PER_TOKEN, PICTURE_TOKENS, SMALL_PICTURE_TOKENS
from gateway.dialects.registry import DIALECTS
from gateway.domain.faults import INVALID_BODY, UPSTREAM_BROKEN, Fault
from gateway.domain.usage import Usage
from tests.support import typed_recordings as recordings

RESPONSES = DIALECTS["openai-responses"]
REPORT = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
PIXEL = "data:image/png;base64," + "A" * 4000


def ask(**fields: Any) -> Ask:
    """What a request with these fields asks."""
    return RESPONSES.read_request(json.dumps({"model": "m", "input": "hello", **fields}).encode(), b"/v1")


def event(kind: str, **fields: Any) -> bytes:
    """One event."""
    return recordings.event(kind, json.dumps({"type": kind, **fields}).encode())


def read(*reads: bytes) -> StreamReader:
    """A reader at the end of a stream."""
    reader = RESPONSES.stream_reader(strip_usage=False)
    for data in reads:
        reader.feed(data)
    reader.end()
    return reader


@pytest.mark.parametrize(
    ("fields", "most"), [({}, None), ({"max_output_tokens": 10}, 10), ({"max_output_tokens": None}, None)]
)
def test_the_most_that_an_answer_may_cost(fields: dict[str, Any], most: int | None) -> None:
    """Were it less, a caller could hold little and use much."""
    assert ask(**fields).max_output == most


def test_the_callers_own_bytes_go_on() -> None:
    """Nothing has to be added to be told the usage: not even a stream is touched."""
    body = b'{ "model":"m", "stream" : true, "input":[] }'
    read = RESPONSES.read_request(body, b"/v1")

    assert read.body is body
    assert (read.streamed, read.strip_usage, read.prompt_bytes) == (True, False, len(body))


def test_a_background_answer_is_held_at_its_estimate() -> None:
    """What is written out of sight may not be charged as if it were empty."""
    assert ask(background=True).estimate_stands
    assert not ask(background=False).estimate_stands


@pytest.mark.parametrize(("detail", "tokens"), [("high", PICTURE_TOKENS), ("low", SMALL_PICTURE_TOKENS)])
def test_pictures_are_estimated_by_rule(detail: str, tokens: int) -> None:
    """Base64 is no text: two pictures hold what two pictures cost."""
    picture = {"type": "input_image", "image_url": PIXEL, "detail": detail}
    content = [{"role": "user", "content": [picture, picture]}]
    text_bytes = len(json.dumps({"model": "m", "input": content})) - 2 * len(PIXEL)

    assert 0 <= ask(input=content).prompt_bytes - 2 * tokens * BYTES_PER_TOKEN - text_bytes < 100


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"max_output_tokens": "x"}'])
def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    """In words that say what is wrong."""
    with pytest.raises(Fault) as caught:
        RESPONSES.read_request(body, b"/v1")
    assert caught.value.kind is INVALID_BODY


@pytest.mark.parametrize("name", recordings.NAMES)
def test_recorded_whole_answers_count_exactly(name: str) -> None:
    """B2: the usage is the provider's own, to the token."""
    told = json.loads(recordings.whole(name)).get("usage")
    expected = recordings.told(name, streamed=False) if told else None

    assert RESPONSES.read_usage(recordings.whole(name)) == expected


def test_pictures_made_by_tools_are_added() -> None:
    """OpenAI tells and bills the tokens of its picture tool apart from the model's."""
    answer = {"usage": REPORT, "tool_usage": {"image_gen": {"input_tokens": 10, "output_tokens": 1056}}}

    assert RESPONSES.read_usage(json.dumps(answer).encode()) == Usage(15, 1063)
    assert read(event("response.completed", response={"id": "r"} | answer)).usage == Usage(15, 1063)


@pytest.mark.parametrize(
    ("events", "usage"),
    [
        ([{"id": "a", "usage": REPORT}, {"id": "a", "usage": REPORT}], Usage(5, 7)),
        ([{"id": "a", "usage": REPORT}, {"id": "b", "usage": REPORT}], Usage(10, 14)),
        ([{"usage": REPORT}, {"usage": REPORT}], Usage(10, 14)),
        ([{"id": "a", "usage": {}}, {"id": "b", "usage": None}, {"id": "c"}], None),
        ([{"id": "a", "usage": {"input_tokens": 3, "output_tokens": 0, "total_tokens": 9}}], Usage(3, 6)),
    ],
)
def test_each_step_counts_once(events: list[dict[str, Any]], usage: Usage | None) -> None:
    """B2: all responses of a stream are charged, and none twice."""
    assert read(*(event("response.completed", response=one) for one in events)).usage == usage


def test_a_last_event_of_several_megabytes_is_read() -> None:
    """An answer with a picture in it repeats the picture in its last event, before its usage."""
    output = [{"type": "image_generation_call", "result": "A" * (5 << 20)}]
    last = event("response.completed", response={"id": "r", "output": output, "usage": REPORT})
    reads = [last[at : at + 65_536] for at in range(0, len(last), 65_536)]

    assert read(event("response.created", response={"id": "r"}), *reads).usage == Usage(5, 7)


@pytest.mark.parametrize(
    ("kind", "fields", "finished", "error"),
    [
        ("response.completed", {"response": {"usage": REPORT, "error": None}}, True, False),
        ("response.incomplete", {"response": {"usage": None, "error": None}}, True, False),
        ("response.failed", {"response": {"usage": None, "error": {"code": "x"}}}, True, True),
        ("error", {"message": "x", "code": None, "error": None}, False, True),
        ("response.output_text.delta", {"delta": "x"}, False, False),
    ],
)
def test_the_end_is_told_from_a_cut(kind: str, fields: dict[str, Any], finished: bool, error: bool) -> None:
    """An answer that came to its end isn't told of as cut, and the other way round."""
    reader = read(event("response.created", response={"id": "r", "usage": None, "error": None}), event(kind, **fields))

    assert (reader.finished, reader.error_seen) == (finished, error)
    assert reader.broken_off is not (finished or error)


def test_the_text_is_what_the_model_wrote() -> None:
    """Reasoning and calls are output; sound and what a tool printed are not."""
    reader = read(
        event("response.reasoning_text.delta", delta="so "),
        event("response.output_text.delta", delta="h\u00e9"),
        event("response.function_call_arguments.delta", delta="{}"),
        event("response.audio.delta", delta="AAAA"),
        event("response.shell_call_output_content.delta", delta={"stdout": "no"}),
        event("response.output_text.done", text="h\u00e9"),
    )

    assert reader.text() == "so h\u00e9{}"
    assert reader.text_bytes() == len("so h\u00e9{}".encode())


def test_the_text_of_a_whole_answer() -> None:
    """Where an upstream reports no usage, its words are counted: summaries, texts and arguments."""
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "b"}, {"type": "refusal", "refusal": "c"}]},
        {"type": "function_call", "name": "d", "arguments": "e"},
        "f",
    ]

    assert RESPONSES.answer_text(json.dumps({"output": output}).encode()) == "a\nb\nc\ne\nd"


def test_a_stopped_stream_ends_as_an_incomplete_response() -> None:
    """B5: the SDK reads it as an answer that ran into `max_output_tokens`, with its text and the usage."""
    reader = RESPONSES.stream_reader(strip_usage=False)
    reader.feed(recordings.events("openai-web-search-tool.1")[0])
    reader.feed(event("response.output_text.delta", delta="half an ", sequence_number=41))
    reader.feed(event("response.output_text.delta", delta="answer", sequence_number=42))

    sent = reader.stop(Usage(5, 7, 2, 1)).decode()

    head, data, _, _ = sent.split("\n")
    ended = ResponseIncompleteEvent.model_validate_json(data.removeprefix("data: "))
    assert head == "event: response.incomplete"
    assert (ended.sequence_number, ended.response.status, ended.response.output_text) == (
        43,
        "incomplete",
        "half an answer",
    )
    assert ended.response.model == "gpt-5-mini-2025-08-07"
    assert ended.response.usage is not None
    assert (ended.response.usage.total_tokens, ended.response.usage.input_tokens_details.cached_tokens) == (12, 2)


@pytest.mark.parametrize("sent", [b"", b"data: {\n\n", event("response.created", response={})])
def test_a_stream_that_said_nothing_yet_can_be_stopped(sent: bytes) -> None:
    """Whatever came before, nothing is raised."""
    reader = RESPONSES.stream_reader(strip_usage=False)
    reader.feed(sent)

    assert isinstance(reader.stop(Usage()), bytes)


def test_a_fault_inside_a_stream_is_the_apis_own_error_event() -> None:
    """The SDK raises it; half an event before it is closed first."""
    sent = RESPONSES.stream_fault(Fault(UPSTREAM_BROKEN), "req-1")

    assert sent.startswith(b"\n\nevent: error\ndata: {")
    told = json.loads(sent.split(b"data: ")[1])
    assert ResponseErrorEvent.model_validate(told).code == "upstream_broken"
    assert told["error"]["code"] == "upstream_broken"
