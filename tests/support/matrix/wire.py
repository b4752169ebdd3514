"""What an upstream of any dialect can be asked to put on the wire, and what it counts while it does.

A word is one token of the tests' vocabulary, so that a count by the text is exact. Beside the words the upstream bills
an input, some of it cached, and tokens that were thought and not said.
"""

from typing import Protocol

from gateway.domain.usage import Usage

WORD = " token"
INPUT, CACHED, HIDDEN = 30, 8, 3


def billed(words: int) -> Usage:
    """What the upstream bills for an answer of so many words."""
    return Usage(INPUT, words + HIDDEN, CACHED, HIDDEN)


class Wire(Protocol):
    """One dialect, as its provider speaks it. Counts are told only where `tells`."""

    @property
    def kind(self) -> str:
        """The content type of a stream."""
        ...

    @property
    def answer_kind(self) -> str:
        """The content type of a whole answer."""
        ...

    @property
    def told(self) -> Usage | None:
        """What the events of `begin` tell of the count."""
        ...

    def begin(self) -> list[bytes]:
        """The events before the first word."""
        ...

    def word(self, number: int, *, tells: bool) -> bytes:
        """The event that says the word of that number, from 0."""
        ...

    def end(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """The events after the last word. `steps`: the answer took several, told apart where the dialect does so."""
        ...

    def error(self, words: int) -> bytes:
        """The event of an upstream that gives up after so many words."""
        ...

    def whole(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """An answer that isn't streamed."""
        ...

    def call(self, *, streamed: bool) -> bytes:
        """A whole stream, or a whole answer, that calls a function instead of saying something; billed as no word."""
        ...
