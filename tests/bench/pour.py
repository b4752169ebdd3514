"""A source for downloads: answers `GET …/<byte_s>` by bytes without an end, so many a second.

With 0 it sends as fast as they are taken. Its answers have a length that nobody reads to the end. Run as
`python -m tests.bench.pour PORT`.
"""

import socket
import sys
import threading
import time
from contextlib import suppress

LENGTH = 10**12
BLOCK = bytes(1 << 18)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: %d\r\n\r\n" % LENGTH


def _serve(link: socket.socket) -> None:
    with suppress(OSError, ValueError, IndexError), link:
        byte_s = int(link.recv(65_536).split()[1].rpartition(b"/")[2])
        link.sendall(HEAD)
        due_s = time.monotonic()
        while True:
            link.sendall(BLOCK)
            if byte_s:
                due_s += len(BLOCK) / byte_s
                time.sleep(max(0.0, due_s - time.monotonic()))


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listening:
        while True:
            threading.Thread(target=_serve, args=(listening.accept()[0],), daemon=True).start()
