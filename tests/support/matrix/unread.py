"""Answers in which there is nothing to be streamed or nothing to be read: embeddings, and any API at all."""

import json
from dataclasses import dataclass

from gateway.domain.usage import Usage
from tests.support.matrix.openai_typed import Typed
from tests.support.matrix.wire import INPUT, WORD

EMBEDDED = Usage(INPUT, 0)


@dataclass(frozen=True, slots=True)
class Embeddings(Typed):
    """A `Wire` that is never streamed, and has no output."""

    def word(self, number: int, *, tells: bool) -> bytes:
        """Never asked for."""
        raise NotImplementedError(number, tells)

    def end(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """Never asked for."""
        raise NotImplementedError(words, tells, steps)

    def whole(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """A vector."""
        del words, steps
        data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        usage = {"usage": {"prompt_tokens": INPUT, "total_tokens": INPUT}} if tells else {}
        return json.dumps({"object": "list", "model": "m", "data": data} | usage).encode()


@dataclass(frozen=True, slots=True)
class Anything(Typed):
    """A `Wire`: bytes, of which nothing is known."""

    kind = "application/x-anything"
    answer_kind = "application/x-anything"

    def word(self, number: int, *, tells: bool) -> bytes:
        """Some bytes."""
        del number, tells
        return WORD.encode()

    def end(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """Some more."""
        del words, tells, steps
        return b"."

    def whole(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """All of them."""
        del tells, steps
        return WORD.encode() * words + b"."
