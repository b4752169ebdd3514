"""A source for downloads: answers every request by bytes without an end, as fast as they are taken.

Its answers have a length that nobody reads to the end. Run as `python -m tests.bench.pour PORT`.
"""

import socket
import sys
import threading
from contextlib import suppress

LENGTH = 10**12
BLOCK = bytes(1 << 18)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: %d\r\n\r\n" % LENGTH


def _serve(link: socket.socket) -> None:
    with suppress(OSError), link:
        if b"\r\n\r\n" in link.recv(65_536):
            link.sendall(HEAD)
            while True:
                link.sendall(BLOCK)


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listening:
        while True:
            threading.Thread(target=_serve, args=(listening.accept()[0],), daemon=True).start()
