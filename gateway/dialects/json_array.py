"""Cuts a JSON array that arrives in pieces into its elements, without decoding them.

Each element is returned as a server-sent event, so that what reads one framing reads both. Never raises: of bytes that
are no array it makes what it can. Memory: one element, up to `MAX_ELEMENT_BYTES`; a longer one is not looked into.
"""

import re

MAX_ELEMENT_BYTES = 16 << 20

_MARK = re.compile(rb'["{}\[\]]')
_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)


class ArrayCutter:
    """`ended` says that the array was closed."""

    __slots__ = ("_begun", "_depth", "_escaped", "_held", "_held_bytes", "_in_string", "_passing", "ended")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escaped = self.ended = False
        self._begun = self._passing = False
        self._held: list[bytes] = []
        self._held_bytes = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The elements that `data` completes, as events, and all that came up to their end, to be sent on.

        What follows an element is held until the next one is whole, or the array ends; b"" while nothing is.
        """
        events, whole, start = [], [], 0
        for end in self._ends(data):
            element = b"".join((*self._held, data[start:end]))
            events.append(_event(element))
            whole.append(element)
            self._held, self._held_bytes, start = [], 0, end
            self._passing = False
        if start < len(data):
            self._held_bytes += len(data) - start
            self._held.append(data[start:])
        if self.ended or self._held_bytes > MAX_ELEMENT_BYTES:
            self._passing = not self.ended
            whole.append(self.rest())
        self._begun = self._begun or bool(whole)
        return b"".join(events), b"".join(whole)

    def rest(self) -> bytes:
        """What is still held."""
        rest, self._held, self._held_bytes = b"".join(self._held), [], 0
        return rest

    @property
    def joint(self) -> bytes | None:
        """What has to stand before one more element, behind what was sent on. None after the end, and while an element
        is passing that is too long to be held.
        """  # noqa: D205
        if self.ended or self._passing:
            return None
        return b"," if self._begun else b"["

    def split(self, data: bytes) -> list[bytes]:
        """`data`, cut behind each element; in place of `feed`, for who needs no elements."""
        ends = self._ends(data)
        return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True) if start < end]

    def _ends(self, data: bytes) -> list[int]:
        """Where elements end: just past the brackets that close them."""
        ends, at = [], 0
        while at < len(data):
            if self._in_string:
                at = self._skip(data, at)
                continue
            mark = _MARK.search(data, at)
            if mark is None:
                break
            at, sign = mark.end(), mark[0]
            if sign == b'"':
                self._in_string = True
            elif sign in b"{[":
                self._depth += 1
            else:
                self._depth -= 1
                self.ended = self.ended or self._depth == 0
                if self._depth == 1:
                    ends.append(at)
        return ends

    def _skip(self, data: bytes, at: int) -> int:
        """Past the string's end, or the end of the data."""
        if self._escaped:
            self._escaped, at = False, at + 1
        found = _STRING.match(data, at)
        at = found.end() if found else at
        if at >= len(data):
            return len(data)
        if data[at] == 0x22:
            self._in_string = False
        else:
            self._escaped = True
        return at + 1


def _event(element: bytes) -> bytes:
    # A line end is never inside a string of JSON.
    plain = element.lstrip(b" \t\r\n,[").replace(b"\n", b" ").replace(b"\r", b" ")
    return b"data: " + plain + b"\n\n"
