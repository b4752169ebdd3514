"""The OpenAI dialects of sound: `/v1/audio/speech` (text in, sound out), `/v1/audio/transcriptions` and
`/v1/audio/translations` (sound in, text out).

Sound is estimated by rules. Speech that comes as plain sound tells no usage: the estimate stands. A transcription that
tells how long it listened is charged by that time. Errors as in `OpenAI`.
"""  # noqa: D205

import math
from typing import Any

import msgspec

from gateway.dialects.dialect import Ask, StreamReader
from gateway.dialects.embedded_media import BYTES_PER_TOKEN
from gateway.dialects.json_body import UNREADABLE, decode, without_mark
from gateway.dialects.multipart import parts
from gateway.dialects.openai import OpenAI
from gateway.dialects.openai_events import EventStream
from gateway.dialects.openai_usage import usage_of
from gateway.domain.usage import Usage

SPOKEN_TOKENS_PER_BYTE = 1.5
"""Sound tokens of speech, for each byte of its text: 21 a second (OpenAI's price of a minute), 15 letters a second."""

HEARD_TOKENS_PER_S = 10
"""Tokens of a second of sound that is listened to (OpenAI, "Audio": 1 token per 100 ms)."""

FILE_BYTES_PER_TOKEN = 800
"""Bytes of an uploaded file for each token: 10 tokens a second at 64 kbit/s."""

_LONGEST_S = 1 << 30


class _SpeechRequest(msgspec.Struct, gc=False):
    model: str | None = None
    input: str | None = None
    instructions: str | None = None
    stream_format: str | None = None


class _Heard(msgspec.Struct, gc=False):
    text: Any = None
    usage: Any = None
    duration: Any = None


_speech = msgspec.json.Decoder(_SpeechRequest)
_heard = msgspec.json.Decoder(_Heard)


class OpenAISpeech(OpenAI):
    """A `Dialect`."""

    name = "openai-speech"

    def read_request(self, body: bytes, path: bytes) -> Ask:
        """The text as input, its sound as output. Raises Fault(INVALID_BODY)."""
        del path
        body = without_mark(body)
        asked = decode(_speech, body) if body else _SpeechRequest()
        spoken_bytes = len((asked.input or "").encode("utf-8", "replace"))
        return Ask(
            model=asked.model or "",
            streamed=asked.stream_format == "sse",
            prompt_bytes=spoken_bytes + len((asked.instructions or "").encode("utf-8", "replace")),
            max_output=math.ceil(spoken_bytes * SPOKEN_TOKENS_PER_BYTE),
            choices=1,
            body=body,
            estimate_stands=True,
        )

    def stream_reader(self, *, strip_usage: bool) -> StreamReader:
        """A reader for one stream of `speech.audio` events."""
        del strip_usage
        return EventStream()


class OpenAITranscriptions(OpenAI):
    """A `Dialect`."""

    name = "openai-transcriptions"

    def read_request(self, body: bytes, path: bytes) -> Ask:
        """The sound by its size and the prompt by its length as input; the text is not bounded. Never raises."""
        del path
        model, streamed, prompt_bytes = "", False, 0
        for part in parts(body):
            if part.is_file:
                prompt_bytes += part.size_bytes * BYTES_PER_TOKEN // FILE_BYTES_PER_TOKEN
            elif part.name == "model":
                model = part.text.decode("utf-8", "replace")
            elif part.name == "stream":
                streamed = part.text.lower() == b"true"
            elif part.name == "prompt":
                prompt_bytes += part.size_bytes
        if body and not prompt_bytes:
            prompt_bytes = max(1, len(body) * BYTES_PER_TOKEN // FILE_BYTES_PER_TOKEN)
        return Ask(model, streamed, prompt_bytes, None if body else 0, choices=1, body=body)

    def read_usage(self, body: bytes) -> Usage | None:
        """The tokens that a whole answer reports, else the time that it says it listened."""
        try:
            heard = _heard.decode(body)
        except UNREADABLE:
            return None
        usage = usage_of(heard.usage)
        if usage is not None:
            return usage
        seconds = heard.usage.get("seconds") if isinstance(heard.usage, dict) else heard.duration
        return _listened(seconds)

    def answer_text(self, body: bytes) -> str:
        """The text that was heard: a JSON answer's, or all of a plain one."""
        try:
            text = _heard.decode(body).text
        except UNREADABLE:
            return body.decode("utf-8", "replace")
        return text if isinstance(text, str) else ""

    def stream_reader(self, *, strip_usage: bool) -> StreamReader:
        """A reader for one stream of `transcript.text` events."""
        del strip_usage
        return EventStream()


def _listened(seconds: Any) -> Usage | None:
    """Sound of so many seconds (a number, or one as text) as tokens; the text that was heard costs nothing more."""
    try:
        length_s = float(seconds)
    except (TypeError, ValueError):
        return None
    return Usage(math.ceil(length_s * HEARD_TOKENS_PER_S)) if 0 < length_s < _LONGEST_S else None
