"""The OpenAI dialect of pictures: `/v1/images/generations`, `/v1/images/edits` and `/v1/images/variations`.

A picture's tokens follow from its size and quality. Models that report no usage are charged that estimate. Errors as
in `OpenAI`.
"""

import math
import re
from typing import Any

import msgspec

from gateway.dialects.dialect import Ask, StreamReader
from gateway.dialects.embedded_media import BYTES_PER_TOKEN, PICTURE_TOKENS, text_bytes
from gateway.dialects.json_body import UNREADABLE, decode, without_mark
from gateway.dialects.multipart import parts
from gateway.dialects.openai import OpenAI
from gateway.dialects.openai_events import EventStream
from gateway.dialects.openai_request import MOST_TOKENS
from gateway.dialects.openai_usage import added, usage_of
from gateway.domain.usage import Usage

SQUARE_TOKENS = {"low": 272, "standard": 1056, "medium": 1056}
"""Output tokens of a 1024 x 1024 picture by quality (OpenAI, "Image generation", cost); any other is taken for high."""

HIGH_SQUARE_TOKENS = 4160
PARTIAL_TOKENS = 100
"""What each partial picture of a stream adds (the same page)."""

_SQUARE_PIXELS = 1024 * 1024
_LARGEST_PIXELS = 3840 * 2160
_USUAL_PIXELS = 1024 * 1536
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    n: int | None = None
    size: str | None = None
    quality: str | None = None
    stream: bool | None = None
    partial_images: int | None = None
    frame_count: int | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: Any = None
    svg_usage: Any = None


_request = msgspec.json.Decoder(_Request)
_loose_request = msgspec.json.Decoder(_Request, strict=False)
_answer = msgspec.json.Decoder(_Answer)


class OpenAIImages(OpenAI):
    """A `Dialect`."""

    name = "openai-images"

    def read_request(self, body: bytes, path: bytes) -> Ask:
        """What a JSON body or a form asks for. Raises Fault(INVALID_BODY)."""
        del path
        if body.startswith(b"--"):
            asked, prompt_bytes = _read_form(body)
        else:
            body = without_mark(body)
            asked, prompt_bytes = (decode(_request, body), text_bytes(body)) if body else (_Request(), 0)
        return Ask(
            model=asked.model or "",
            streamed=asked.stream is True,
            prompt_bytes=prompt_bytes,
            max_output=picture_tokens(asked) if body else 0,
            choices=max(1, asked.n or 1),
            body=body,
            estimate_stands=True,
        )

    def read_usage(self, body: bytes) -> Usage | None:
        """The usage of a whole answer; that of a drawing's author is told apart, and added."""
        try:
            answer = _answer.decode(body)
        except UNREADABLE:
            return None
        return added(usage_of(answer.usage), usage_of(answer.svg_usage))

    def answer_text(self, body: bytes) -> str:
        """None: pictures are no text."""
        del body
        return ""

    def stream_reader(self, *, strip_usage: bool) -> StreamReader:
        """A reader for one stream of `image_generation` or `image_edit` events."""
        del strip_usage
        return EventStream()


def picture_tokens(asked: _Request) -> int:
    """Output tokens of all pictures that are asked for."""
    size = _SIZE.fullmatch(asked.size or "")
    pixels = min(int(size[1]) * int(size[2]), _LARGEST_PIXELS) if size else _USUAL_PIXELS
    square = SQUARE_TOKENS.get(asked.quality or "", HIGH_SQUARE_TOKENS)
    one = math.ceil(square * pixels / _SQUARE_PIXELS) + max(0, asked.partial_images or 0) * PARTIAL_TOKENS
    return min(one * max(1, asked.n or 1) * max(1, asked.frame_count or 1), MOST_TOKENS)


def _read_form(body: bytes) -> tuple[_Request, int]:
    """The fields of a form, and its prompt's length with each picture as the text that would cost as much."""
    fields: dict[str, str] = {}
    prompt_bytes = 0
    for part in parts(body):
        if part.is_file:
            prompt_bytes += PICTURE_TOKENS * BYTES_PER_TOKEN
        elif part.name == "prompt":
            prompt_bytes += part.size_bytes
        else:
            fields[part.name] = part.text.decode("utf-8", "replace")
    asked = decode(_loose_request, msgspec.json.encode(fields))
    return asked, prompt_bytes
