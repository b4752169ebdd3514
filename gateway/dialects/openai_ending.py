"""Ends an OpenAI-shaped stream in its upstream's place, as one that ran into its maximum of tokens. Never raises."""

from collections.abc import Iterable

import msgspec

from gateway.dialects.json_body import UNREADABLE
from gateway.dialects.sse import event_data, split_events
from gateway.domain.usage import Usage

_COMPLETION = "text_completion"
"""The `object` of a legacy completion, whose choices carry a text in place of a delta."""


class _Like(msgspec.Struct, gc=False):
    """What every chunk of a stream says alike."""

    id: str | None = ""
    object: str | None = ""
    created: int | None = 0
    model: str | None = ""


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _Details
    completion_tokens_details: _OutputDetails


_like = msgspec.json.Decoder(_Like)


def ending(events: bytes, choices: Iterable[int], usage: Usage | None) -> bytes:
    """The finish reason `length` for each of `choices`, the usage unless None, and the terminator.

    `events` are some that the stream sent: what their last chunk says of id, model and time, these say too.
    """
    like = _last_chunk(events)
    said = {
        "id": like.id or "",
        "object": like.object or "chat.completion.chunk",
        "created": like.created or 0,
        "model": like.model or "",
    }
    empty: dict[str, object] = {"text": ""} if like.object == _COMPLETION else {"delta": {}}
    chunks: list[dict[str, object]] = [
        {**said, "choices": [{"index": index, **empty, "finish_reason": "length"}]} for index in sorted(choices)
    ]
    if usage is not None:
        chunks.append({**said, "choices": [], "usage": _usage(usage)})
    return b"".join(b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in chunks) + b"data: [DONE]\n\n"


def _last_chunk(events: bytes) -> _Like:
    for event in reversed(list(split_events(events))):
        try:
            return _like.decode(event_data(event))
        except UNREADABLE:
            continue
    return _Like()


def _usage(usage: Usage) -> _Usage:
    return _Usage(
        usage.input_tokens,
        usage.output_tokens,
        usage.tokens,
        _Details(usage.cached_tokens),
        _OutputDetails(usage.reasoning_tokens),
    )
