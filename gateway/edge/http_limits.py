"""What a client may cost before its request is known: the bounds of the HTTP server, none of which is a setting."""

from dataclasses import dataclass

MAX_HEAD_BYTES = 65_536
"""Of a request's head, of its trailers, and of the framing around chunks that bring nothing."""

MAX_TARGET_BYTES = 16_384
MAX_FIELDS = 256
MAX_QUEUED = 32
"""Pipelined requests that wait for their turn. Those beyond are not read: the connection closes after the last."""

MAX_UNREAD_BYTES = 65_536
"""Of a body that the application has not read yet: beyond, the socket is not read. One read of it may come on top."""

MAX_DISCARDED_BYTES = 1_048_576
"""Of a body that nobody wants any more, to save the connection; a longer one costs it."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the server waits for its client, in seconds. A wait may be late by two sweeps, 0.4 s at most."""

    head_s: float = 30.0
    """From a head's first byte, or from the connection's start, to the head's end."""
    body_s: float = 60.0
    """For the next byte of a body that the application waits for."""
    answer_s: float = 60.0
    """For any byte of an answer to be taken."""
    discard_s: float = 10.0
    """For the rest of a body that nobody wants any more."""
    linger_s: float = 10.0
    """For the client to have read the last answer and to close."""
