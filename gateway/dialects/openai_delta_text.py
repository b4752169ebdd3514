"""The text of a stream of typed events, for the tokenizer. Never raises: what can't be read adds no text."""

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.dialects.kept_text import payloads

SAID, OTHER = 0, 1
"""Lanes: the answer's own words, and what else the model wrote, reasoning and calls."""

_HEARD_OR_DRAWN = ("audio.delta", ".partial_image")
_SAYS = frozenset({"response.output_text.delta", "response.refusal.delta", "transcript.text.delta"})


class _Delta(msgspec.Struct, gc=False):
    type: Any = None
    delta: Any = None


_delta = msgspec.json.Decoder(_Delta)
_batch = msgspec.json.Decoder(list[_Delta])


class Deltas:
    """Reads the events of one stream.

    `heard_or_drawn` says that sound came, or a part of a picture, which have no text; `latest_type` is the type of the
    event that was read last.
    """

    __slots__ = ("heard_or_drawn", "latest_type")

    def __init__(self) -> None:
        self.heard_or_drawn = False
        self.latest_type = ""

    def read(self, events: bytes) -> Iterator[tuple[int, str]]:
        """All that the `delta` fields of `events` say, each in its lane, sound excepted."""
        for event in payloads(events, _batch, _delta.decode):
            kind = self.latest_type = str(event.type)
            if kind.endswith(_HEARD_OR_DRAWN):
                self.heard_or_drawn = True
            elif isinstance(event.delta, str):
                yield SAID if kind in _SAYS else OTHER, event.delta
