"""Reads a request of the Messages API: what admission must know. The caller's own bytes are forwarded.

Fails with Fault(INVALID_BODY), its public text saying what is wrong and where.
"""

import msgspec

from gateway.dialects.dialect import Ask
from gateway.dialects.inline_media import Medium, media
from gateway.dialects.json_body import decode, without_mark
from gateway.dialects.token_count import MOST

PIXELS_PER_TOKEN = 750
"""Anthropic, "Vision": tokens = width x height / 750."""

LARGEST_PICTURE_TOKENS = 4_784
"""What the largest picture costs once the upstream has scaled it down (the same page, high-resolution models)."""

PICTURE_TOKENS = 1_600
"""What one costs whose size isn't known: as much as a picture that needs no scaling on any model."""

PAGE_TOKENS = 3_000
"""Most that one page of a PDF comes to, its text and its picture (Anthropic, "PDF support"); 1,500 are the least."""

DOCUMENT_CHARS_PER_TOKEN = 20
"""Base64 characters a token of PDF: a page of 60 KB, a scan, comes to 4,000."""

_TEXT_BYTES_PER_TOKEN = 4
"""Turns a medium's tokens into bytes of English text, the measure of `Ask.prompt_bytes`."""

_SOURCE = b'"source"'
"""Stands in every picture and document: one search in place of two for the many bodies that have neither."""

_UNCOUNTED = (b"/count_tokens", b"/batches")


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    stream: bool | None = None
    max_tokens: int | None = None


_request = msgspec.json.Decoder(_Request)


def read_request(body: bytes, path: bytes) -> Ask:
    """What the body asks for. Raises Fault(INVALID_BODY).

    Token counting is free, a batch runs and is paid for later, and a request without a body asks for no text.
    """
    body = without_mark(body)
    if not body or path.endswith(_UNCOUNTED):
        return Ask(model="", streamed=False, prompt_bytes=0, max_output=0, choices=1, body=body)
    request = decode(_request, body)
    bound = request.max_tokens
    most = min(bound, MOST) if bound is not None and bound >= 0 else None
    return Ask(request.model or "", request.stream is True, text_bytes(body), most, 1, body)


def text_bytes(body: bytes) -> int:
    """The length of the text in `body`, each picture and document counted as the text that would cost as much."""
    if body.find(_SOURCE) < 0:
        return len(body)
    pictures, documents = body.count(b'"image"'), body.count(b'"document"')
    if not pictures and not documents:
        return len(body)
    encoded = tokens = 0
    for medium in media(body):
        if not medium.is_picture and not medium.is_document:
            continue
        encoded += medium.chars
        tokens += _tokens(medium)
        pictures, documents = pictures - medium.is_picture, documents - medium.is_document
    tokens += max(0, pictures) * PICTURE_TOKENS + max(0, documents) * PAGE_TOKENS
    return len(body) - encoded + tokens * _TEXT_BYTES_PER_TOKEN


def _tokens(medium: Medium) -> int:
    if medium.is_document:
        return max(PAGE_TOKENS, medium.chars // DOCUMENT_CHARS_PER_TOKEN)
    if medium.size is None:
        return PICTURE_TOKENS
    width, height = medium.size
    return min(LARGEST_PICTURE_TOKENS, -(-width * height // PIXELS_PER_TOKEN))
