"""Collects the text of an OpenAI-shaped answer, for the tokenizer, where the upstream reports no usage.

A stream's bytes are kept as they came, at next to no cost, and turned into text a batch at a time: what is held of a
stream is one batch of bytes and its text, which is bounded. Never raises: an event that can't be read adds no text.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.dialects.json_body import UNREADABLE
from gateway.dialects.sse import event_data, split_events

BATCH_BYTES = 32 << 10
"""Bytes of stream kept before they are turned into text."""

MAX_TEXT_CHARS = 4 << 20
"""The longest text kept: above what any model writes in one answer."""

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


class StreamText:
    """The text of one stream. `add` takes complete events; `finished` is known of what was turned into text.

    `latest` are some of the events that were turned into text last.
    """

    __slots__ = ("_bytes", "_chars", "_kept_bytes", "_open", "_raw", "_seen", "_texts", "latest")

    def __init__(self) -> None:
        self._raw: list[bytes] = []
        self._kept_bytes = 0
        self._texts: dict[int, list[str]] = {}
        self._chars = 0
        self._bytes = 0
        self.latest = b""
        self._seen = False
        self._open: set[int] = set()

    def add(self, events: bytes) -> None:
        """Keep complete events as they came."""
        self._raw.append(events)
        self._kept_bytes += len(events)
        if self._kept_bytes > BATCH_BYTES:
            self._digest()

    def drop(self) -> None:
        """Forget it all: the upstream told its usage."""
        self._raw.clear()
        self._texts.clear()
        self._kept_bytes = self._chars = self._bytes = 0

    def text(self) -> str:
        """The text so far, one choice after the other."""
        self._digest()
        for index, texts in self._texts.items():
            self._texts[index] = ["".join(texts)]
        return "\n".join(texts[0] for texts in self._texts.values())

    def text_bytes(self) -> int:
        """The length of `text` in UTF-8, the line ends between choices left out."""
        self._digest()
        return self._bytes

    @property
    def open_choices(self) -> frozenset[int]:
        """Those that did not come to their finish reason; the first where none was seen."""
        self._digest()
        return frozenset(self._open if self._seen else {0})

    @property
    def unfinished(self) -> bool:
        """Some choice that was seen did not come to its finish reason."""
        self._digest()
        return bool(self._open)

    @property
    def finished(self) -> bool:
        """Every choice that was seen came to its finish reason."""
        self._digest()
        return self._seen and not self._open

    def _digest(self) -> None:
        if not self._raw:
            return
        events = b"".join(self._raw)
        self.latest = self._raw[-1]
        self._raw.clear()
        self._kept_bytes = 0
        batch: dict[int, list[str]] = {}
        for chunk in _chunks(events):
            for choice in chunk.choices or ():
                self._take(choice, batch)
        for index, texts in batch.items():
            text = "".join(texts)
            self._bytes += len(text.encode())
            self._texts.setdefault(index, []).append(text)

    def _take(self, choice: _Choice, batch: dict[int, list[str]]) -> None:
        self._seen = True
        if choice.finish_reason:
            self._open.discard(choice.index)
        else:
            self._open.add(choice.index)
        text = _text_of(choice)
        if text and self._chars < MAX_TEXT_CHARS:
            batch.setdefault(choice.index, []).append(text)
            self._chars += len(text)


def answer_text(body: bytes) -> str:
    """The text of a whole answer, "" where it has none that can be read."""
    chunk = _read_chunk(body)
    return "\n".join(_text_of(choice) for choice in chunk.choices or ()) if chunk else ""


def _chunks(events: bytes) -> Iterator[_Chunk]:
    """The chunks in `events`; well-formed ones are decoded at once, as one JSON array."""
    if events.startswith(b"data: {"):
        array = events.rstrip()[6:].removesuffix(b"data: [DONE]").rstrip().replace(b"\n\ndata: ", b",")
        try:
            yield from _batch.decode(b"[" + array + b"]")
        except UNREADABLE:
            pass
        else:
            return
    for event in split_events(events):
        chunk = _read_chunk(event_data(event))
        if chunk is not None:
            yield chunk


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
