"""Server-sent events as bytes: where events end, and what an event's data is.

Owns the framing (WHATWG HTML, "Server-sent events"): lines end in LF, CRLF or CR, an event in a blank line. Promises
that what goes in comes out, byte for byte, and that no more than `MAX_EVENT_BYTES` is held. Never raises.
"""

import re
from collections.abc import Iterator

MAX_EVENT_BYTES = 1 << 20
"""An event longer than this is not looked into: it passes through in pieces."""

EVENT_ENDS = (b"\n\n", b"\r\n\r\n")
"""How nearly every event ends: cheap to look for at the end of a read."""

_END = re.compile(rb"\n\r?\n|\r\r\n?")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LONGEST_END = 3
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventCutter:
    """Cuts a byte stream after its last complete event, and holds the rest until it is complete.

    `held` is what waits for its end, read by read: a long event is joined once, not once for each read. `passing` says
    that an event too long to be held is under way, and a part of it was returned.
    """

    __slots__ = ("_held_bytes", "_longest_bytes", "held", "passing")

    def __init__(self, longest_bytes: int = MAX_EVENT_BYTES) -> None:
        self.held: list[bytes] = []
        self.passing = False
        self._held_bytes = 0
        self._longest_bytes = longest_bytes

    def feed(self, data: bytes) -> bytes:
        """The events that `data` completes, with what was held before them; b"" while none is complete."""
        if not self.held:
            end = _last_end(data)
        else:
            before = b"".join(self.held[-_LONGEST_END:])[-_LONGEST_END:]
            end = max(0, _last_end(before + data) - len(before))
        self.passing = self.passing and end == 0
        if end == 0 and self._held_bytes + len(data) > self._longest_bytes:
            self.passing = True
            end = len(data)
        if end == 0:
            if data:
                self.held.append(data)
                self._held_bytes += len(data)
            return b""
        self.held.append(data[:end])
        complete = b"".join(self.held)
        # While `passing` never empty: who looks at `held` alone must not take the next read for a new event.
        self.held = [data[end:]] if end < len(data) or self.passing else []
        self._held_bytes = len(data) - end
        return complete

    def rest(self) -> bytes:
        """What is still held: an event that the stream's end left incomplete."""
        rest, self.held, self._held_bytes = b"".join(self.held), [], 0
        return rest


def split_events(data: bytes) -> Iterator[bytes]:
    """The events in `data`, each with the blank line that ends it; joined they are `data` again."""
    start = 0
    for match in _END.finditer(data):
        yield data[start : match.end()]
        start = match.end()
    if start < len(data):
        yield data[start:]


def event_start(data: bytes, at: int) -> int:
    """Where the event begins that the byte at `at` belongs to."""
    return _last_end(data[:at])


def event_data(event: bytes) -> bytes:
    """The event's data: its `data` fields joined by LF, b"" where it has none (a comment, say)."""
    lines = [_field_value(line) for line in _LINE_END.split(event.removeprefix(_BYTE_ORDER_MARK))]
    return b"\n".join(line for line in lines if line is not None)


def _field_value(line: bytes) -> bytes | None:
    if not line.startswith(b"data"):
        return None
    if line.startswith(b"data:"):
        return line[6:] if line.startswith(b"data: ") else line[5:]
    return b"" if line == b"data" else None


def _last_end(data: bytes) -> int:
    """The index just past the last blank line, 0 where there is none."""
    line_feeds = data.rfind(b"\n\n")
    # The rarer ends matter only behind that: searching all of a long read for them would cost more than all else.
    behind = max(0, line_feeds)
    mixed = data.rfind(b"\n\r\n", behind) + 3
    returns = data.rfind(b"\r\r", behind) + 2
    end = max(line_feeds + 2 if line_feeds >= 0 else 0, mixed if mixed > 2 else 0, returns if returns > 1 else 0)
    return end + 1 if end and data[end - 2 : end] == b"\r\r" and data[end : end + 1] == b"\n" else end
