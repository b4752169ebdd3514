"""The last head of a connection: the next request with the same one, but for its body's length, needs no parser.

Clients that keep a connection send the same dozen fields again and again; reading them is most of what a request costs
the server. Promises: what is recognised was read and checked by the parser before, byte for byte; nothing is known of
one client to another; a head costs one copy of its bytes for as long as its connection lasts.
"""

from typing import Self

from gateway.edge.exchange import Scope
from gateway.upstream.transport import RawHeaders

_LENGTH = b"content-length"
_NUMBERS = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_MAX_DIGITS = 10


class KnownHead:
    """`_before` and `_after` are the head's bytes around the length, `_place` the length's place among the fields."""

    __slots__ = ("_after", "_before", "_fields", "_place", "_scope")

    def __init__(self, before: bytes, after: bytes, place: int, scope: Scope) -> None:
        self._before = before
        self._after = after
        self._place = place
        self._scope = dict(scope)
        self._fields: RawHeaders = scope["headers"].copy()

    @classmethod
    def of(cls, data: bytes, scope: Scope) -> Self | None:
        """The head at the start of `data`, which `scope` was made of; None where it isn't worth knowing."""
        end = data.find(b"\r\n\r\n") + 4
        fields = scope["headers"]
        names = [name for name, _ in fields]
        if _LENGTH not in names:
            return cls(data[:end], b"", -1, scope)
        place = names.index(_LENGTH)
        value = fields[place][1]
        for number in _NUMBERS:
            at = data.find(number, 0, end) + len(number)
            after = at + len(value)
            if at >= len(number) and data[at:after] == value and data.startswith(b"\r\n", after):
                return cls(data[:at], data[after:end], place, scope)
        return None

    def again(self, data: bytes) -> tuple[Scope | None, bytes]:
        """The scope and the body of a request that is all of `data`; no scope where it has another head."""
        before, after, place = self._before, self._after, self._place
        at = len(before)
        if data[:at] != before:
            return None, b""
        fields = self._fields.copy()
        if place < 0:
            body = data[at:]
            if body:
                return None, b""
        else:
            end = data.find(b"\r", at, at + _MAX_DIGITS + 1)
            digits = data[at:end]
            start = end + len(after)
            body = data[start:]
            if end < 0 or not digits.isdigit() or data[end:start] != after or len(body) != int(digits):
                return None, b""
            fields[place] = (_LENGTH, digits)
        scope = self._scope.copy()
        scope["headers"] = fields
        return scope, body
