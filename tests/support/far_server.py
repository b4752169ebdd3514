"""An upstream of large bodies and idle WebSockets, on threads of its own, so that the test's own thread is a client."""

import socket
import threading
from contextlib import suppress
from io import BufferedReader
from types import TracebackType
from typing import Self

BLOCK = bytes(1 << 18)
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"


class FarServer:
    """`GET …/<n>` is answered by n bytes, a body by how long it was, a handshake by a WebSocket that says nothing."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listening.getsockname()[1]
        self._links: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        """It listens already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        for link in (self._listening, *self._links):
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                link = self._listening.accept()[0]
                self._links.append(link)
                threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        with suppress(OSError, ValueError), link.makefile("rb") as said:
            while line := said.readline():
                fields = _fields(said)
                if b"upgrade" in fields:
                    link.sendall(SWITCHING)
                    return
                if b"content-length" in fields:
                    text = b"%d" % _taken(said, int(fields[b"content-length"]))
                    link.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))
                else:
                    _pour(link, int(line.split()[1].rpartition(b"/")[2]))


def _fields(said: BufferedReader) -> dict[bytes, bytes]:
    fields = {}
    while (line := said.readline()) not in {b"\r\n", b""}:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    return fields


def _taken(said: BufferedReader, size: int) -> int:
    taken = 0
    while taken < size and (block := said.read1(min(size - taken, len(BLOCK)))):
        taken += len(block)
    return taken


def _pour(link: socket.socket, size: int) -> None:
    link.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: %d\r\n\r\n" % size)
    while size > 0:
        link.sendall(BLOCK[:size])
        size -= len(BLOCK)
