"""OpenAI's chat completions and completions on the wire (OpenAI, "Chat Completions: streaming")."""

import json
from dataclasses import dataclass
from typing import Any

from gateway.domain.usage import Usage
from tests.support.matrix.wire import WORD, billed
from tests.support.openai_wire import DONE

OVERLOADED = {"message": "overloaded", "type": "server_error", "param": None, "code": "overloaded"}
FUNCTION = {"name": "weather", "arguments": '{"city": "Rome"}'}


def report(usage: Usage) -> dict[str, Any]:
    """`usage`, as told by both."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


@dataclass(frozen=True, slots=True)
class Chat:
    """A `Wire`."""

    kind: str = "text/event-stream"
    answer_kind: str = "application/json"
    told: Usage | None = None

    def begin(self) -> list[bytes]:
        """The role."""
        return [_chunk(_delta({"role": "assistant", "content": ""}))]

    def word(self, number: int, *, tells: bool) -> bytes:
        """A delta."""
        del number, tells
        return _chunk(_delta({"content": WORD}))

    def end(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """Finish reason, usage, terminator."""
        del steps
        return _chunk(_delta({}, "stop")) + _tail(words, tells=tells)

    def error(self, words: int) -> bytes:
        """As OpenAI's servers and most that speak like them tell it."""
        del words
        return b"data: " + json.dumps({"error": OVERLOADED}).encode() + b"\n\n" + DONE

    def whole(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """A message."""
        del steps
        return _whole({"role": "assistant", "content": WORD * words}, "stop", words, tells=tells)

    def call(self, *, streamed: bool) -> bytes:
        """A tool call; a stream tells its arguments in two pieces."""
        named = {"index": 0, "id": "call_1", "type": "function", "function": FUNCTION | {"arguments": '{"city": '}}
        rest = {"index": 0, "function": {"arguments": '"Rome"}'}}
        if streamed:
            chunks = [_chunk(_delta({"tool_calls": [piece]})) for piece in (named, rest)]
            return b"".join([*self.begin(), *chunks, _chunk(_delta({}, "tool_calls")), _tail(0, tells=True)])
        message = {"role": "assistant", "content": None, "tool_calls": [named | {"function": FUNCTION}]}
        return _whole(message, "tool_calls", 0, tells=True)


@dataclass(frozen=True, slots=True)
class Completions:
    """A `Wire`. Knows no functions."""

    kind: str = "text/event-stream"
    answer_kind: str = "application/json"
    told: Usage | None = None

    def begin(self) -> list[bytes]:
        """Nothing comes before the text."""
        return []

    def word(self, number: int, *, tells: bool) -> bytes:
        """A piece of text."""
        del number, tells
        return _event(COMPLETION | {"choices": [_text(WORD)]})

    def end(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """Finish reason, usage, terminator."""
        del steps
        usage = _event(COMPLETION | {"choices": [], "usage": report(billed(words))}) if tells else b""
        return _event(COMPLETION | {"choices": [_text("", "stop")]}) + usage + DONE

    def error(self, words: int) -> bytes:
        """As in a chat."""
        return Chat().error(words)

    def whole(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """The text."""
        del steps
        usage = {"usage": report(billed(words))} if tells else {}
        return json.dumps(COMPLETION | {"choices": [_text(WORD * words, "stop")]} | usage).encode()

    def call(self, *, streamed: bool) -> bytes:
        """Never asked for."""
        raise NotImplementedError(streamed)


HEAD = {"id": "chatcmpl-1", "created": 1, "model": "m"}
COMPLETION: dict[str, Any] = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}


def _event(fields: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def _chunk(choice: dict[str, Any]) -> bytes:
    return _event(HEAD | {"object": "chat.completion.chunk", "choices": [choice], "usage": None})


def _delta(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}


def _text(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}


def _tail(words: int, *, tells: bool) -> bytes:
    usage = {"object": "chat.completion.chunk", "choices": [], "usage": report(billed(words))}
    return (_event(HEAD | usage) if tells else b"") + DONE


def _whole(message: dict[str, Any], finish: str, words: int, *, tells: bool) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    usage = {"usage": report(billed(words))} if tells else {}
    return json.dumps(HEAD | {"object": "chat.completion", "choices": [choice]} | usage).encode()
