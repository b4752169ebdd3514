"""WebSocket frames (RFC 6455 §5) as they pass: where one ends and the next begins, and the text messages among them.

Promises: nothing is kept but the head of a frame and, where texts are asked for, one text message of a bounded length;
any cutting of the bytes gives the same. Raises ValueError for what a server may not send where texts are read.
"""

TEXT, CONTINUATION, CONTROL, CLOSE = 1, 0, 8, 8
_LONGER = {126: 2, 127: 8}


class FrameReader:
    """Of one direction. `most_bytes` bounds a text message; 0 reads none, and takes any frame for what it says."""

    __slots__ = ("_fin", "_head", "_in_text", "_keeps", "_left", "_most_bytes", "_parts", "_size")

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._head = b""
        self._left = self._size = 0
        self._fin = self._in_text = self._keeps = False
        self._parts: list[bytes] = []

    @property
    def mid_frame(self) -> bool:
        """Whether what was fed ends inside a frame: nothing of our own may be put there."""
        return bool(self._left or self._head)

    def to_boundary(self, data: bytes) -> int:
        """Feed the rest of the frame that is under way; how many bytes of `data` that took."""
        at = 0
        while at < len(data) and self.mid_frame:
            step = self._left or 1
            self.feed(data[at : at + step])
            at = min(len(data), at + step)
        return at

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they came; the text messages that they complete."""
        texts: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            if self._left:
                step = min(self._left, end - at)
                if self._keeps:
                    self._parts.append(data[at : at + step])
                self._left -= step
                at += step
            else:
                wanted = _head_size(self._head) - len(self._head)
                self._head += data[at : at + wanted]
                at = min(end, at + wanted)
                if len(self._head) < 2 or len(self._head) < _head_size(self._head):
                    continue
                self._begin()
            if not self._left:
                self._end(texts)
        return texts

    def _begin(self) -> None:
        """The head of a frame is whole."""
        head, self._head = self._head, b""
        first, length = head[0], head[1] & 0x7F
        more = _LONGER.get(length, 0)
        self._left = int.from_bytes(head[2 : 2 + more]) if more else length
        self._fin = bool(first & 0x80)
        opcode = first & 0x0F
        self._keeps = False
        if not self._most_bytes:
            return
        if first & 0x70 or head[1] & 0x80:
            raise ValueError("a frame is masked, or of an extension that was not agreed on")
        if opcode >= CONTROL:
            self._fin = False  # of a message, it ends none
            return
        if opcode != CONTINUATION:
            self._in_text, self._size = opcode == TEXT, 0
        if self._in_text:
            self._keeps = True
            self._size += self._left
            if self._size > self._most_bytes:
                raise ValueError(f"a text message is longer than {self._most_bytes} bytes")

    def _end(self, texts: list[bytes]) -> None:
        if self._keeps and self._fin:
            texts.append(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
            self._parts.clear()
            self._in_text = False
        self._keeps = False


def close_frame(code: int, reason: str) -> bytes:
    """A server's Close (RFC 6455 §5.5.1): `reason` is at most 123 bytes."""
    payload = code.to_bytes(2) + reason.encode()[:123]
    return bytes((0x80 | CLOSE, len(payload))) + payload


def _head_size(head: bytes) -> int:
    if len(head) < 2:
        return 2
    return 2 + _LONGER.get(head[1] & 0x7F, 0) + (4 if head[1] & 0x80 else 0)
