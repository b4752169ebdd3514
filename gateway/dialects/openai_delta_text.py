"""The text of a stream of typed events, for the tokenizer. Never raises: what can't be read adds no text."""

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.dialects.kept_text import payloads

SAID, OTHER = 0, 1
"""Lanes: the answer's own words, and what else the model wrote, reasoning and calls."""

_SAYS = frozenset({"response.output_text.delta", "response.refusal.delta", "transcript.text.delta"})


class _Delta(msgspec.Struct, gc=False):
    type: Any = None
    delta: Any = None


_delta = msgspec.json.Decoder(_Delta)
_batch = msgspec.json.Decoder(list[_Delta])


def delta_texts(events: bytes) -> Iterator[tuple[int, str]]:
    """All that the `delta` fields of `events` say, each in its lane, sound excepted."""
    for event in payloads(events, _batch, _delta.decode):
        kind = str(event.type)
        if isinstance(event.delta, str) and not kind.endswith("audio.delta"):
            yield SAID if kind in _SAYS else OTHER, event.delta
