"""The OpenAI dialect of the Realtime API: a WebSocket, whose server tells the usage of each answer at its end.

Errors are those of `OpenAI`. A session's usage is the sum of its `response.done` events, and of the transcriptions
of what was said (`conversation.item.input_audio_transcription.completed`), which are a model's work of their own.
"""

from typing import Any

import msgspec

from gateway.dialects.dialect import Ask
from gateway.dialects.openai import OpenAI
from gateway.dialects.plain import PlainStream
from gateway.domain.faults import INVALID_BODY, Fault
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
    """A `Dialect`, of whose port a WebSocket needs the errors alone."""

    name = "openai-realtime"

    def read_request(self, body: bytes, path: bytes) -> Ask:
        """Nothing: a request that isn't a WebSocket's. Raises Fault(INVALID_BODY)."""
        del body, path
        raise Fault(INVALID_BODY, public="This route takes WebSockets alone: send `Upgrade: websocket`.")


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


def _count(value: Any) -> int:
    return max(0, value or 0)
