"""Reads a request of the Gemini API: what admission must know, of its path and its body. The body goes on as it came.

Fails with Fault(INVALID_BODY), its public text saying what is wrong and where.
"""

from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from gateway.dialects.dialect import Ask
from gateway.dialects.inline_media import Medium, media
from gateway.dialects.json_body import decode, without_mark
from gateway.dialects.token_count import MOST, count

PICTURE_TOKENS = 1_120
"""What a picture costs at Gemini 3's default resolution; older models take 258 a tile and come to less."""

CHARS_PER_TOKEN = 333
"""Base64 characters a token of sound or film: 32 tokens a second of sound ("Audio understanding") at 64 kbit/s."""

PAGE_TOKENS = 560
"""What a page of a PDF costs ("Media resolution"), and least of any document."""

DOCUMENT_CHARS_PER_TOKEN = 100
"""Base64 characters a token of PDF: a page of 42 KB comes to 560."""

_TEXT_BYTES_PER_TOKEN = 4
_FREE = frozenset({b"countTokens", b"batchGenerateContent", b"asyncBatchEmbedContent"})
_SILENT = frozenset({b"embedContent", b"batchEmbedContents"})


class _Request(msgspec.Struct, gc=False):
    """Google reads both spellings of a name, and numbers as text."""

    generationConfig: Any = None  # noqa: N815  # the name on the wire
    generation_config: Any = None


_request = msgspec.json.Decoder(_Request)


def read_request(body: bytes, path: bytes) -> Ask:
    """What is asked of the model that the path names. Raises Fault(INVALID_BODY).

    Counting tokens is free, a batch runs and is paid for later, and a request without a body asks for no text.
    """
    name, _, action = unquote_to_bytes(path).rpartition(b"/")[2].partition(b":")
    body = without_mark(body)
    model = name.decode(errors="replace")
    if not body or action in _FREE:
        return Ask(model=model, streamed=False, prompt_bytes=0, max_output=0, choices=1, body=body)
    request = decode(_request, body)
    choices, most = _bounds(request)
    streamed = action == b"streamGenerateContent"
    if action in _SILENT:
        choices, most = 1, 0
    return Ask(model, streamed, text_bytes(body), most, choices, body, array_stream=streamed)


def _bounds(request: _Request) -> tuple[int, int | None]:
    """Candidates, and the most tokens that they may come to; None where the caller set no bound."""
    choices, bound = 1, 0
    for config in (request.generationConfig, request.generation_config):
        if isinstance(config, dict):
            choices = max(choices, count(config.get("candidateCount")), count(config.get("candidate_count")))
            bound = max(bound, count(config.get("maxOutputTokens")), count(config.get("max_output_tokens")))
    return choices, min(bound * choices, MOST) if bound else None


def text_bytes(body: bytes) -> int:
    """The length of the text in `body`, each medium counted as the text that would cost as much."""
    files = body.count(b'"fileData"') + body.count(b'"file_data"')
    tokens, encoded = files * PICTURE_TOKENS, 0
    if b'"inlineData"' in body or b'"inline_data"' in body:
        for medium in media(body):
            encoded += medium.chars
            tokens += _tokens(medium)
    return len(body) - encoded + tokens * _TEXT_BYTES_PER_TOKEN


def _tokens(medium: Medium) -> int:
    if medium.is_picture:
        return PICTURE_TOKENS
    if medium.is_document:
        return max(PAGE_TOKENS, medium.chars // DOCUMENT_CHARS_PER_TOKEN)
    return max(PAGE_TOKENS, medium.chars // CHARS_PER_TOKEN)
