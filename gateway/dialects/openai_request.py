"""Reads a chat completions request: what admission must know, and the bytes that go upstream.

Only the named fields are decoded, and the caller's own bytes are forwarded; a streamed request that doesn't ask for
its usage gets the option added, as without it the upstream tells no usage. Where a key is repeated the last one
counts, as it does at the upstream. Fails with Fault(INVALID_BODY), its public text saying what is wrong and where.
"""

import msgspec

from gateway.dialects.dialect import Ask
from gateway.dialects.embedded_media import text_bytes
from gateway.dialects.json_body import UNREADABLE, decode, invalid, without_mark

MOST_TOKENS = 1 << 40
"""Bounds what a caller's max_tokens x n comes to, so that sums stay exact in the limiter (2^53)."""

_NONE = msgspec.Raw()
_INCLUDE_USAGE = b'"stream_options":{"include_usage":true},'


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    stream: bool | None = None
    stream_options: msgspec.Raw = _NONE
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    messages: msgspec.Raw = _NONE
    prompt: msgspec.Raw = _NONE


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


_request = msgspec.json.Decoder(_Request)
_stream_options = msgspec.json.Decoder(_StreamOptions | None)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_request(body: bytes) -> Ask:
    """What the body asks for. Raises Fault(INVALID_BODY).

    An empty body (a GET) and a multipart one (an upload) ask for no text: both pass as they are.
    """
    body = without_mark(body)
    if not body or body.startswith(b"--"):
        return Ask(model="", streamed=False, prompt_bytes=0, max_output=0 if not body else None, choices=1, body=body)
    request = decode(_request, body)
    choices = max(1, request.n or 1, request.best_of or 1)
    streamed = request.stream is True
    ask = Ask(request.model or "", streamed, text_bytes(body), _max_output(request, choices), choices, body)
    if not streamed or not (bytes(request.messages) or bytes(request.prompt)):
        return ask
    return _asking_for_usage(ask, request.stream_options)


def _max_output(request: _Request, choices: int) -> int | None:
    """The larger bound where both are given, as upstreams differ in which one they obey."""
    return bounded(max(request.max_completion_tokens or 0, request.max_tokens or 0), choices)


def bounded(bound: int | None, choices: int = 1) -> int | None:
    """The most tokens that all choices may cost together, None where the caller set no bound.

    0 and less are no bound: local servers take -1 for unlimited, and some take 0 for absent.
    """
    return min(bound * choices, MOST_TOKENS) if bound and bound > 0 else None


def _asking_for_usage(ask: Ask, stream_options: msgspec.Raw) -> Ask:
    if not bytes(stream_options):
        start = ask.body.index(b"{") + 1
        body = b"".join((ask.body[:start], _INCLUDE_USAGE, memoryview(ask.body)[start:]))
        return msgspec.structs.replace(ask, body=body, strip_usage=True)
    try:
        options = _stream_options.decode(stream_options)
        if options is not None and options.include_usage:
            return ask
        kept = _fields.decode(stream_options) if options is not None else {}
        fields = _fields.decode(ask.body)
    except UNREADABLE as error:
        raise invalid(error, "stream_options") from None
    kept["include_usage"] = msgspec.Raw(b"true")
    fields["stream_options"] = msgspec.Raw(msgspec.json.encode(kept))
    return msgspec.structs.replace(ask, body=msgspec.json.encode(fields), strip_usage=True)
