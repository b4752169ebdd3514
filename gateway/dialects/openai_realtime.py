"""The OpenAI dialect of the Realtime API: a WebSocket, whose server tells the usage of each answer at its end.

Errors are those of `OpenAI`. A session's usage is the sum of its `response.done` events, and of the transcriptions
of what was said (`conversation.item.input_audio_transcription.completed`), which are a model's work of their own.
"""

from typing import Any
from urllib.parse import quote, unquote_plus, unquote_to_bytes

import msgspec

from gateway.dialects.dialect import Ask
from gateway.dialects.openai import OpenAI
from gateway.dialects.plain import PlainStream
from gateway.domain.faults import INVALID_BODY, UNKNOWN_PARAMETER, Fault
from gateway.domain.usage import Usage

DONE = "response.done"
TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
_MARKS = tuple(kind.encode() for kind in (DONE, TRANSCRIBED))


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_token_details: _Details | None = None


class _Response(msgspec.Struct, gc=False):
    usage: _Usage | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    response: _Response | None = None
    usage: _Usage | None = None


_event = msgspec.json.Decoder(_Event)


class OpenAIRealtime(OpenAI):
    """A `Dialect`, of whose port a WebSocket needs the errors and the name of the model alone."""

    name = "openai-realtime"

    def read_request(self, body: bytes, path: bytes) -> Ask:
        """Nothing: a request that isn't a WebSocket's. Raises Fault(INVALID_BODY)."""
        del body, path
        raise Fault(INVALID_BODY, public="This route takes WebSockets alone: send `Upgrade: websocket`.")

    def with_model(self, path: bytes, body: bytes, model: str) -> tuple[bytes, bytes]:
        """See `Dialect.with_model`: a handshake names its model in the query of its path."""
        head, mark, query = path.partition(b"?")
        named = b"model=" + quote(model, safe="").encode()
        parts = [named if _names_model(part) else part for part in query.split(b"&")]
        return head + mark + b"&".join(parts), body


class RealtimeReader(PlainStream):
    """A `StreamReader` of a session: `usage` is that of all its answers so far."""

    __slots__ = ()

    def hear(self, text: bytes) -> bool:
        """Take a message of the server; whether it told any usage. Never raises."""
        if not any(mark in text for mark in _MARKS):
            return False
        try:
            event = _event.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        told = event.usage if event.type == TRANSCRIBED else None
        if event.type == DONE and event.response is not None:
            told = event.response.usage
        if told is None:
            return False
        before = self.usage or Usage()
        cached = told.input_token_details.cached_tokens if told.input_token_details else 0
        self.usage = Usage(
            before.input_tokens + _count(told.input_tokens),
            before.output_tokens + _count(told.output_tokens),
            before.cached_tokens + _count(cached),
        )
        return True


def model_in(query: bytes) -> str:
    """The model that a handshake's query names, "" where it names none.

    Raises Fault(UNKNOWN_PARAMETER) where it names two: upstreams differ in which of them they take.
    """
    named = [part for part in query.split(b"&") if _names_model(part)]
    if len(named) > 1:
        raise Fault(UNKNOWN_PARAMETER, public="The query names two models: name one.")
    return unquote_plus(named[0].partition(b"=")[2].decode("latin-1")) if named else ""


def _names_model(part: bytes) -> bool:
    return unquote_to_bytes(part.partition(b"=")[0]) == b"model"


def _count(value: Any) -> int:
    return max(0, value or 0)
