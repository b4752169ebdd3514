"""The text of an OpenAI-shaped answer, whole or streamed, for the tokenizer, and where a stream stands.

Never raises: what can't be read adds no text.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.dialects.json_body import UNREADABLE
from gateway.dialects.kept_text import payloads

_SILENT = frozenset({"id", "role", "type", "finish_reason", "logprobs", "signature", "data", "url"})
"""Fields that no model wrote."""


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Message | None = None
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None


_chunk = msgspec.json.Decoder(_Chunk)
_batch = msgspec.json.Decoder(list[_Chunk])


class Choices:
    """Reads the chunks of one stream. `seen` says that there was a choice; `open` are those without a finish reason."""

    __slots__ = ("open", "seen")

    def __init__(self) -> None:
        self.seen = False
        self.open: set[int] = set()

    def read(self, events: bytes) -> Iterable[tuple[int, str]]:
        """The texts in `events`, one for each choice, which is its lane."""
        texts: dict[int, list[str]] = {}
        for chunk in payloads(events, _batch, _read_chunk):
            for choice in chunk.choices or ():
                self.seen = True
                if choice.finish_reason:
                    self.open.discard(choice.index)
                else:
                    self.open.add(choice.index)
                if text := _text_of(choice):
                    texts.setdefault(choice.index, []).append(text)
        return [(index, "".join(pieces)) for index, pieces in texts.items()]


def answer_text(body: bytes) -> str:
    """The text of a whole answer, "" where it has none that can be read."""
    chunk = _read_chunk(body)
    return "\n".join(_text_of(choice) for choice in chunk.choices or ()) if chunk else ""


def _read_chunk(data: bytes) -> _Chunk | None:
    try:
        return _chunk.decode(data)
    except msgspec.ValidationError:
        return _read_loosely(data)
    except UNREADABLE:
        return None


def _read_loosely(data: bytes) -> _Chunk | None:
    """A chunk of another make (content as a list of parts, say): all text under its choices as one."""
    try:
        chunk = msgspec.json.decode(data)
    except UNREADABLE:
        return None
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    if not isinstance(choices, list):
        return None
    return _Chunk([_loose_choice(choice) for choice in choices if isinstance(choice, dict)])


def _loose_choice(choice: dict[str, Any]) -> _Choice:
    index, finish = choice.get("index"), choice.get("finish_reason")
    return _Choice(
        index=index if isinstance(index, int) else 0,
        text="".join(_strings(choice)),
        finish_reason=str(finish) if finish else None,
    )


def _strings(value: Any) -> list[str]:
    """Every text inside a decoded value, in order. Not recursive: the value may be nested as deep as a decoder goes."""
    found: list[str] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, list):
            waiting.extend(reversed(item))
        elif isinstance(item, dict):
            waiting.extend(reversed([inner for key, inner in item.items() if key not in _SILENT]))
    return found


def _text_of(choice: _Choice) -> str:
    """The text of a choice. vLLM and OpenRouter send the reasoning under two names: it is taken once."""
    message = choice.delta or choice.message
    if message is None:
        return choice.text or ""
    text = (message.reasoning_content or message.reasoning or "") + (message.content or "") + (message.refusal or "")
    if message.tool_calls is None and message.function_call is None:
        return text
    functions = [call.function for call in message.tool_calls or ()]
    calls = [
        (function.name or "") + (function.arguments or "")
        for function in (*functions, message.function_call)
        if function is not None
    ]
    return text + "".join(calls)
