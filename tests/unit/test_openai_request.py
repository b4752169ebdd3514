"""What is read of a chat completions request: the reserve hangs on it (row B1); the body goes on as it was (F2)."""

import json
from typing import Any

import pytest

from gateway.dialects.dialect import Ask
from gateway.dialects.embedded_media import BYTES_PER_TOKEN, PICTURE_TOKENS
from gateway.dialects.openai_request import MOST_TOKENS, read_request
from gateway.domain.faults import INVALID_BODY, Fault

MESSAGES = [{"role": "user", "content": "hello"}]


def ask(**fields: Any) -> Ask:
    """What a chat request with these fields asks."""
    return read_request(json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode())


def refused(body: bytes) -> str:
    """The public text that a body is refused with."""
    with pytest.raises(Fault) as caught:
        read_request(body)
    assert caught.value.kind is INVALID_BODY
    return caught.value.public


def test_a_whole_answer_is_asked_for_with_the_callers_own_bytes() -> None:
    """Without a stream nothing is added: the very object that came in goes on, odd spelling and all."""
    body = b'{ "model":"m",  "messages":[],"max_tokens":7, "new":{"field":[1.50]} }'

    read = read_request(body)

    assert read == Ask("m", False, len(body), 7, 1, body)
    assert read.body is body


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({}, None),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20}, 20),
        ({"max_tokens": 10, "max_completion_tokens": None}, 10),
        ({"max_tokens": 100_000, "max_completion_tokens": 1}, 100_000),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": 10, "n": 1, "best_of": 5}, 50),
        ({"max_tokens": 10, "n": -3}, 10),
        ({"max_tokens": 0}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": -1, "n": 2}, None),
        ({"max_tokens": 10**18, "n": 10**18}, MOST_TOKENS),
    ],
)
def test_the_most_that_an_answer_may_cost(fields: dict[str, int], most: int | None) -> None:
    """The bound is the larger one given, times the choices; what upstreams take for "no bound" is none here either.

    Were it less, a caller could hold little and use much.
    """
    assert ask(**fields).max_output == most


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"max_tokens":"5"}', "max_tokens must be an integer."),
        (b'{"max_tokens":5.0}', "max_tokens must be an integer."),
        (b'{"max_tokens":true}', "max_tokens must be an integer."),
        (b'{"max_tokens":' + b"9" * 5000 + b"}", "max_tokens is out of range."),
        (b'{"max_completion_tokens":[]}', "max_completion_tokens must be an integer."),
        (b'{"n":{}}', "n must be an integer."),
        (b'{"stream":"true"}', "stream must be a boolean."),
        (b'{"stream":1}', "stream must be a boolean."),
        (b'{"model":5}', "model must be a string."),
        (b'{"stream":true,"messages":[],"stream_options":5}', "stream_options must be an object."),
        (
            b'{"stream":true,"messages":[],"stream_options":{"include_usage":"yes"}}',
            "stream_options.include_usage must be a boolean.",
        ),
        (b"[]", "The request body must be an object."),
        (b"null", "The request body must be an object."),
        (b'{"a":1', "The request body is not valid JSON: Input data was truncated."),
        (b'{"a":tru}', "The request body is not valid JSON: invalid character (byte 6)."),
        (b'{"a":' + b"[" * 100_000, "The request body is nested too deeply."),
    ],
)
def test_a_mistake_is_named_with_its_place(body: bytes, text: str) -> None:
    """The caller reads what to mend, in the field's own name, and nothing of the gateway's insides."""
    assert refused(body) == text


@pytest.mark.parametrize("body", [b'{"model":"\xff"}', b'{"model":"\\ud800"}', b"\xff\xfe{\x00}\x00", b"\x0c{}"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    """Bytes in which an upstream might read something else are not forwarded."""
    assert refused(body).startswith("The request body is not valid JSON: ")


def test_a_stream_asks_for_its_usage() -> None:
    """Without the option an upstream tells no usage, and a streamed answer would evade the limits."""
    body = b' \r\n{ "stream":true,"messages":[]}'

    read = read_request(body)

    assert read.body == b' \r\n{"stream_options":{"include_usage":true}, "stream":true,"messages":[]}'
    assert read.strip_usage
    assert read.streamed
    assert read.prompt_bytes == len(body)


def test_a_caller_that_wants_the_usage_keeps_it() -> None:
    """Who asked for the usage chunk gets it, and its body goes on untouched."""
    body = b'{"stream":true,"messages":[],"stream_options":{"include_usage":true}}'

    read = read_request(body)

    assert read.body is body
    assert not read.strip_usage


@pytest.mark.parametrize(
    "options", [{}, None, {"include_usage": False}, {"include_usage": None}, {"include_obfuscation": False}]
)
def test_stream_options_without_usage_are_completed(options: dict[str, bool] | None) -> None:
    """Whatever else stands in the caller's options and body stays, number for number."""
    fields = {"big": 12345678901234567890123, "model": "é", "messages": MESSAGES, "stream": True}
    body = json.dumps({**fields, "stream_options": options}).encode()

    read = read_request(body)

    assert json.loads(read.body) == {**fields, "stream_options": {**(options or {}), "include_usage": True}}
    assert read.strip_usage


@pytest.mark.parametrize(
    "body",
    [
        b'{"max_tokens":1,"max_tokens":9,"stream":false,"messages":[],"stream":true}',
        b'{"max_tokens":1,"max\\u005ftokens":9,"messages":[],"str\\u0065am":true}',
    ],
)
def test_of_a_repeated_field_the_last_counts(body: bytes) -> None:
    """The gateway reads what the upstream will read, escapes and all: a repeated field can't shrink the reserve."""
    read = read_request(body)

    upstream = json.loads(read.body)
    assert (read.max_output, read.streamed) == (upstream["max_tokens"], upstream["stream"]) == (9, True)
    assert upstream["stream_options"] == {"include_usage": True}


def test_repeated_stream_options_end_with_usage() -> None:
    """A second `stream_options` can't switch the usage off again."""
    body = b'{"stream_options":{"include_usage":true},"messages":[],"stream":true,"stream_options":{"a":1}}'

    upstream = json.loads(read_request(body).body)

    assert upstream["stream_options"] == {"a": 1, "include_usage": True}


def test_a_byte_order_mark_is_taken_off() -> None:
    """Some editors put one there; upstreams differ in whether they take it."""
    assert read_request(b'\xef\xbb\xbf{"model":"m"}').body == b'{"model":"m"}'


def test_bodies_of_other_endpoints_pass_as_they_are() -> None:
    """Under `/v1/*` come lists without a body, uploads and other APIs: none of them is changed or refused."""
    upload = b"--boundary\r\ncontent-disposition: form-data\r\n\r\n\xff"
    responses = b'{"model":"m","input":"hi","stream":true}'

    assert read_request(b"") == Ask("", False, 0, 0, 1, b"")
    assert read_request(upload).body is upload
    assert read_request(responses).body is responses
    assert not read_request(responses).strip_usage


def _part(kind: str, value: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": [{"type": kind, kind: value}]}]}


def test_base64_is_not_counted_as_text() -> None:
    """A picture of 4 MB costs a thousand tokens, not a million: else no picture fits any plan."""
    picture = ask(**_part("image_url", {"url": "data:image/png;base64," + "A" * 4_000_000}))
    linked = ask(**_part("image_url", {"url": "https://example.com/picture.png"}))
    sound = ask(**_part("input_audio", {"data": "A" * 400_000, "format": "wav"}))
    file = ask(**_part("file", {"file_data": "data:application/pdf;base64," + "A" * 3_000_000}))

    assert 0 < picture.prompt_bytes - PICTURE_TOKENS * BYTES_PER_TOKEN < 200
    assert 0 < linked.prompt_bytes - PICTURE_TOKENS * BYTES_PER_TOKEN < 200
    assert 0 < sound.prompt_bytes - 400 * BYTES_PER_TOKEN < 200
    assert 0 < file.prompt_bytes - 3000 * BYTES_PER_TOKEN < 200


_MEDIA: dict[str, object] = {
    "image_url": {"url": "data:image/png;base64," + "A" * 100_000},
    "input_audio": {"data": "A" * 100_000, "format": "wav"},
    "file_data": "data:application/pdf;base64," + "A" * 100_000,
}


@pytest.mark.parametrize("underscores", [0, 1, 29, 30, 31, 32, 33, 34, 1_000])
@pytest.mark.parametrize("kind", _MEDIA)
def test_media_are_found_behind_any_text(kind: str, underscores: int) -> None:
    """Media are looked for by underscores, of which code is full: a picture behind code must cost no month's plan."""
    parts = [{"type": "text", "text": "a_b" * underscores}, {"type": kind, kind: _MEDIA[kind]}]

    assert ask(messages=[{"role": "user", "content": parts}]).prompt_bytes < 8_000


def test_text_that_looks_like_base64_is_text() -> None:
    """Writing `;base64,` into a message doesn't make it cheaper."""
    text = "data:image/png;base64," + "hello" * 10_000

    assert ask(messages=[{"role": "user", "content": text}]).prompt_bytes > len(text)
    assert ask(**_part("input_audio", {"data": "A" * 400}), user="x " + text).prompt_bytes > len(text)
