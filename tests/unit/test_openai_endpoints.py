"""Embeddings, pictures and sound: what a request holds, and what its answer is charged (rows B1, B2, F3)."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.dialects.dialect import Ask
from gateway.dialects.embedded_media import BYTES_PER_TOKEN, PICTURE_TOKENS
from gateway.dialects.openai_audio import FILE_BYTES_PER_TOKEN
from gateway.dialects.registry import DIALECTS
from gateway.domain.faults import Fault
from gateway.domain.usage import Usage

EMBEDDINGS, IMAGES, SPEECH, TRANSCRIPTIONS = (
    DIALECTS[f"openai-{name}"] for name in ("embeddings", "images", "speech", "transcriptions")
)
EMBEDDING = Path(__file__).parents[1] / "data" / "wire" / "openai-embeddings" / "openai-embedding.json"


def form(*fields: tuple[str, bytes], boundary: str = "x-boundary") -> bytes:
    """A form as clients write it; fields named `file` or `image` are files."""
    lines = []
    for name, value in fields:
        file = '; filename="a.bin"' if name.startswith(("file", "image")) else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        lines += [head.encode(), value, b"\r\n"]
    return b"".join(lines) + f"--{boundary}--\r\n".encode()


def asked(dialect: Any, **fields: Any) -> Ask:
    """What a JSON request with these fields asks."""
    ask: Ask = dialect.read_request(json.dumps({"model": "m", **fields}).encode(), b"/v1")
    return ask


def event(**fields: Any) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def test_an_embedding_costs_its_input_alone() -> None:
    """No output is held: vectors are not tokens."""
    ask = asked(EMBEDDINGS, input=["a", "b"])

    assert (ask.max_output, ask.model, ask.streamed) == (0, "m", False)
    assert EMBEDDINGS.read_usage(EMBEDDING.read_bytes()) == Usage(12)
    assert EMBEDDINGS.answer_text(EMBEDDING.read_bytes()) == ""


@pytest.mark.parametrize(
    ("given", "tokens"), [([1, 2, 3], 3), ([[100_000] * 5, [7]], 6), ([[1], [2], [3]], 3), ([7], 1)]
)
def test_tokens_are_counted_and_not_their_digits(given: list[Any], tokens: int) -> None:
    """An app that sends tokens holds their count, however many digits they have."""
    assert asked(EMBEDDINGS, input=given).prompt_bytes == tokens * BYTES_PER_TOKEN


def test_speech_is_held_by_its_letters_and_charged_so() -> None:
    """Sound tells no usage: what was held is charged."""
    ask = asked(SPEECH, input="hé" * 10, instructions="softly")

    assert (ask.prompt_bytes, ask.max_output, ask.estimate_stands) == (36, 45, True)
    assert SPEECH.read_usage(b"ID3\x00\xff") is None


def test_speech_as_events_tells_its_usage() -> None:
    """The last event carries it, the others carry sound that is no text."""
    reader = SPEECH.stream_reader(strip_usage=False)
    reader.feed(event(type="speech.audio.delta", audio="AAAA"))
    reader.feed(event(type="speech.audio.done", usage={"input_tokens": 3, "output_tokens": 90, "total_tokens": 93}))

    assert (reader.usage, reader.finished, reader.text()) == (Usage(3, 90), True, "")


def test_an_upload_is_held_by_the_size_of_its_sound() -> None:
    """The file is not text, the prompt beside it is, and model and stream are known."""
    sound = b"\r\n\x00--" * 16_000
    body = form(("file", sound), ("model", b"whisper-1"), ("prompt", b"names"), ("stream", b"true"))
    ask = TRANSCRIPTIONS.read_request(body, b"/v1")

    assert ask.body is body
    assert (ask.model, ask.streamed, ask.max_output) == ("whisper-1", True, None)
    assert ask.prompt_bytes == len(sound) * BYTES_PER_TOKEN // FILE_BYTES_PER_TOKEN + 5


@pytest.mark.parametrize("body", [b"--", b"--x", b"--x\r\n\r\n", b"{}" * 500, b"\x00" * 5000, b"--x\n--x\n--x--"])
def test_an_upload_that_cannot_be_read_is_held_by_its_size(body: bytes) -> None:
    """What the upstream might still understand is not free."""
    assert TRANSCRIPTIONS.read_request(body, b"/v1").prompt_bytes > 0


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        (
            {"text": "x", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 4, "total_tokens": 18}},
            (14, 4),
        ),
        ({"text": "x", "usage": {"type": "duration", "seconds": 3}}, (30, 0)),
        ({"text": "x", "usage": {"type": "duration", "seconds": 0.01}}, (1, 0)),
        ({"text": "x", "duration": 8.47}, (85, 0)),
        ({"text": "x", "duration": "8.47"}, (85, 0)),
        ({"text": "x", "usage": None}, None),
        ({"text": "x", "usage": {"type": "duration", "seconds": -1}}, None),
        ({"text": "x", "duration": "NaN"}, None),
    ],
)
def test_a_transcription_is_charged_by_tokens_or_by_time(answer: dict[str, Any], usage: tuple[int, int] | None) -> None:
    """Newer models report tokens, others how long they listened."""
    assert TRANSCRIPTIONS.read_usage(json.dumps(answer).encode()) == (None if usage is None else Usage(*usage))


def test_a_transcription_without_usage_is_counted_by_its_text() -> None:
    """As JSON or as plain subtitles."""
    assert TRANSCRIPTIONS.answer_text(b'{"text": "hello"}') == "hello"
    assert TRANSCRIPTIONS.answer_text(b"1\n00:00 hello\n") == "1\n00:00 hello\n"


def test_a_streamed_transcription() -> None:
    """Its usage comes in its last event; stopped early it ends with what was heard."""
    reader = TRANSCRIPTIONS.stream_reader(strip_usage=False)
    reader.feed(event(type="transcript.text.delta", delta="hel"))
    reader.feed(event(type="transcript.text.delta", delta="lo"))
    assert (reader.text(), reader.finished) == ("hello", False)
    ended = json.loads(reader.stop(Usage(1, 2)).split(b"data: ")[1])
    assert (ended["type"], ended["text"], ended["usage"]["total_tokens"]) == ("transcript.text.done", "hello", 3)

    report = {"type": "tokens", "input_tokens": 14, "output_tokens": 4, "total_tokens": 18}
    reader.feed(event(type="transcript.text.done", text="hello", usage=report))
    assert (reader.usage, reader.finished) == (Usage(14, 4), True)


def test_a_transcription_that_ends_without_usage_is_whole() -> None:
    """Not every model tells it in a stream."""
    reader = TRANSCRIPTIONS.stream_reader(strip_usage=False)
    reader.feed(event(type="transcript.text.delta", delta="hel") + event(type="transcript.text.done", text="hel"))

    assert (reader.usage, reader.finished, reader.text()) == (None, True, "hel")


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"size": "1024x1024", "quality": "low"}, 272),
        ({"size": "1024x1536", "quality": "medium"}, 1584),
        ({"size": "1024x1024", "quality": "high", "n": 3}, 3 * 4160),
        ({"quality": "low", "size": "1024x1024", "partial_images": 2}, 472),
        ({}, 6240),
        ({"size": "auto", "quality": "auto"}, 6240),
        ({"size": "99999x99999"}, 32_907),
    ],
)
def test_pictures_are_held_by_size_and_quality(fields: dict[str, Any], tokens: int) -> None:
    """The provider's own table; what is not known is taken for the dearest usual one."""
    ask = asked(IMAGES, prompt="a cat", **fields)

    assert (ask.max_output, ask.estimate_stands) == (tokens, True)


def test_a_form_with_pictures() -> None:
    """An edit's pictures are input, and its fields count as those of JSON."""
    body = form(("image[]", b"\x89PNG" * 900), ("image[]", b"\x89PNG"), ("prompt", b"a cat"), ("n", b"2"),
                ("size", b"1024x1024"), ("quality", b"low"), ("model", b"gpt-image-2"))  # fmt: skip
    ask = IMAGES.read_request(body, b"/v1")

    assert (ask.model, ask.max_output, ask.choices) == ("gpt-image-2", 544, 2)
    assert ask.prompt_bytes == 2 * PICTURE_TOKENS * BYTES_PER_TOKEN + 5


def test_a_form_with_a_number_that_is_none_is_refused() -> None:
    """In words that name the field."""
    with pytest.raises(Fault) as caught:
        IMAGES.read_request(form(("n", b"many"), ("prompt", b"x")), b"/v1")
    assert caught.value.public == "n must be an integer."


def test_the_usage_of_pictures() -> None:
    """As the provider reports it; a drawing's author is told apart and added; older models report none."""
    report = {
        "input_tokens": 50,
        "output_tokens": 272,
        "total_tokens": 322,
        "input_tokens_details": {"text_tokens": 50},
    }
    drawn = {"input_tokens": 5, "output_tokens": 20, "total_tokens": 25, "reasoning_tokens": 8}

    assert IMAGES.read_usage(json.dumps({"data": [], "usage": report}).encode()) == Usage(50, 272)
    assert IMAGES.read_usage(json.dumps({"usage": report, "svg_usage": drawn}).encode()) == Usage(55, 292, 0, 8)
    assert IMAGES.read_usage(b'{"data": []}') is None


def test_each_streamed_picture_counts() -> None:
    """Every picture's last event tells its own usage."""
    reader = IMAGES.stream_reader(strip_usage=False)
    report = {"input_tokens": 50, "output_tokens": 272, "total_tokens": 322}
    reader.feed(event(type="image_generation.partial_image", b64_json="AAAA"))
    for _ in range(2):
        reader.feed(event(type="image_generation.completed", b64_json="A" * (2 << 20), usage=report))

    assert (reader.usage, reader.finished) == (Usage(100, 544), True)
