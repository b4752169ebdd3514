"""Anthropic's messages on the wire (Anthropic, "Streaming messages")."""

import json
from dataclasses import dataclass
from typing import Any

from gateway.domain.usage import Usage
from tests.support.matrix.wire import CACHED, INPUT, WORD, billed

FIRST_OUTPUT = 1
"""What `message_start` tells of the output: a token of it is already there."""


def report(usage: Usage, *, steps: bool = False) -> dict[str, Any]:
    """`usage` as it is told. Of an answer in steps the figures at the top are those of the last one alone."""
    whole: dict[str, Any] = {
        "input_tokens": usage.input_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }
    if not steps:
        return whole
    first = {"type": "message", "input_tokens": 10, "output_tokens": 1}
    last = whole | {"input_tokens": whole["input_tokens"] - 10, "output_tokens": usage.output_tokens - 1}
    return last | {"iterations": [first, last | {"type": "message"}]}


@dataclass(frozen=True, slots=True)
class Messages:
    """A `Wire`."""

    kind: str = "text/event-stream"
    answer_kind: str = "application/json"

    @property
    def told(self) -> Usage | None:
        """Ahead of the answer."""
        return Usage(INPUT, FIRST_OUTPUT, CACHED)

    def begin(self) -> list[bytes]:
        """The message, which tells the input, and its first block."""
        started = _message([], None, report(Usage(INPUT, FIRST_OUTPUT, CACHED)))
        block = {"type": "text", "text": ""}
        return [
            _event({"type": "message_start", "message": started}),
            _event({"type": "content_block_start", "index": 0, "content_block": block}),
        ]

    def word(self, number: int, *, tells: bool) -> bytes:
        """A delta."""
        del number, tells
        return _event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": WORD}})

    def end(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """The block's end, the usage (the SDK needs some; what tells nothing tells 0), the message's end."""
        return _ending("end_turn", report(billed(words), steps=steps) if tells else {"output_tokens": 0})

    def error(self, words: int) -> bytes:
        """An error event."""
        del words
        return _event({"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}})

    def whole(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """A message."""
        usage = report(billed(words), steps=steps) if tells else None
        return json.dumps(_message([{"type": "text", "text": WORD * words}], "end_turn", usage)).encode()

    def call(self, *, streamed: bool) -> bytes:
        """A message that uses a tool."""
        used = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}}
        if not streamed:
            return json.dumps(_message([used], "tool_use", report(billed(0)))).encode()
        delta = {"type": "input_json_delta", "partial_json": '{"city": "Rome"}'}
        return (
            self.begin()[0]
            + _event({"type": "content_block_start", "index": 0, "content_block": used | {"input": {}}})
            + _event({"type": "content_block_delta", "index": 0, "delta": delta})
            + _ending("tool_use", report(billed(0)))
        )


def _message(content: list[dict[str, Any]], stop: str | None, usage: dict[str, Any] | None) -> dict[str, Any]:
    told = {} if usage is None else {"usage": usage}
    fields = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    return fields | {"content": content, "stop_reason": stop} | told


def _ending(stop: str, usage: dict[str, Any]) -> bytes:
    delta = {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}}
    return (
        _event({"type": "content_block_stop", "index": 0})
        + _event(delta | {"usage": usage})
        + _event({"type": "message_stop"})
    )


def _event(fields: dict[str, Any]) -> bytes:
    return f"event: {fields['type']}\ndata: {json.dumps(fields)}\n\n".encode()
