"""A process of the gateway, as its supervisor knows it and as it knows its supervisor.

The two talk over a pair of sockets: the child says one byte for each thing it has done, the supervisor hands down
settings as a file without a name, so that it never waits for a child that stands still.
"""

import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

READY, TAKEN, REFUSED = b"r", b"t", b"f"
"""A child's words: it is at work; it goes by the settings that it was handed; it can't."""


@dataclass(frozen=True, slots=True)
class Lifeline:
    """A child's tie to its supervisor.

    `alive_fd` turns readable when that is gone, `link` when it hands something down. `listening` is
    the child's own socket, which outlives it in the supervisor; None where it has none.
    """

    alive_fd: int
    link: socket.socket
    listening: socket.socket | None = None

    def ready(self) -> None:
        """Tell that this child is at work."""
        self.say(READY)

    def say(self, word: bytes) -> None:
        """Tell the supervisor."""
        with suppress(OSError):
            self.link.send(word)

    def handed(self) -> bytes | None:
        """The next thing that was handed down; None where the supervisor is gone."""
        _, files, _, _ = socket.recv_fds(self.link, 1, 1)
        if not files:
            return None
        try:
            return os.pread(files[0], os.fstat(files[0]).st_size, 0)
        finally:
            os.close(files[0])


@dataclass(slots=True)
class Child:
    """A process to keep running. `body` is its whole life; what it raises is printed and ends it.

    `listen` makes its listening socket, `follow` the process that can take its place. `behind` counts what was handed
    to it and not yet answered for. `due_s` is when a dead one is to be started again, after a pause of `pause_s`; for
    one that was told to leave, when it is killed.
    """

    name: str
    body: Callable[[Lifeline], None]
    listen: Callable[[], socket.socket] | None = None
    follow: Callable[[], "Child"] | None = None
    number: int = 0
    listening: socket.socket | None = None
    pid: int = 0
    ready: bool = False
    behind: int = 0
    started_s: float = 0.0
    pause_s: float = 0.0
    due_s: float = 0.0
    link: socket.socket | None = None

    def hand(self, file: int) -> None:
        """Hand a file down, where there is anyone to take it."""
        if self.link is not None:
            with suppress(OSError):
                socket.send_fds(self.link, [b"s"], [file])
                self.behind += 1

    def deaf(self) -> None:
        """Let the socket go: connections that wait in it are reset, and no more are dealt to it."""
        if self.listening is not None:
            self.listening.close()
            self.listening = None


def nameless(content: bytes) -> int:
    """A descriptor of an open file that has no name and holds this; the caller closes it."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return os.dup(file.fileno())
