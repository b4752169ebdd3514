"""The text of a Messages answer, whole or streamed, for the tokenizer, and where a stream stands. Never raises."""

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.dialects.json_body import UNREADABLE
from gateway.dialects.kept_text import payloads

_SPOKEN = ("thinking", "text", "partial_json", "name")
"""Fields of a block, or of a piece of one, that the model wrote."""


class _Event(msgspec.Struct, gc=False):
    type: Any = None
    index: Any = None
    delta: Any = None
    content_block: Any = None


class _Answer(msgspec.Struct, gc=False):
    content: Any = None


_event = msgspec.json.Decoder(_Event)
_batch = msgspec.json.Decoder(list[_Event])
_answer = msgspec.json.Decoder(_Answer)


class Blocks:
    """Reads the events of one stream. `open` are the content blocks that began and did not end."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open: set[int] = set()

    def read(self, events: bytes) -> Iterator[tuple[int, str]]:
        """The texts in `events`, all in one lane."""
        for event in payloads(events, _batch, _event.decode):
            if event.type == "content_block_delta":
                yield 0, _text_of(event.delta)
            elif event.type == "content_block_start":
                self.open.add(event.index if isinstance(event.index, int) else 0)
                yield 0, _text_of(event.content_block)
            elif event.type == "content_block_stop":
                self.open.discard(event.index if isinstance(event.index, int) else 0)


def answer_text(body: bytes) -> str:
    """The text of a whole answer, "" where it has none that can be read."""
    try:
        content = _answer.decode(body).content
    except UNREADABLE:
        return ""
    if not isinstance(content, list):
        return ""
    return "\n".join([_block_text(block) for block in content if isinstance(block, dict)])


def _block_text(block: dict[str, Any]) -> str:
    asked = block.get("input")
    return _text_of(block) + (msgspec.json.encode(asked).decode() if isinstance(asked, dict) else "")


def _text_of(piece: Any) -> str:
    if not isinstance(piece, dict):
        return ""
    return "".join([text for name in _SPOKEN if isinstance(text := piece.get(name), str)])
