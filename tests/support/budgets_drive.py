"""Plays a gateway's clients and its upstream in lockstep, from inside the gateway's own loop.

Plain sockets, and turns of the loop to wait: no task, future or timer of its own, so that all that is counted is the
gateway's. A wait that takes over `PATIENCE_S` raises TimeoutError.
"""

import asyncio
import re
import select
import socket
import time
from collections.abc import Callable
from typing import Self

PATIENCE_S = 30.0
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class Drive:
    """`port` is where the upstream listens. `received` are the whole requests that reached it, oldest first."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.received: list[bytes] = []
        self._clients: list[socket.socket] = []
        self._upstreams: dict[socket.socket, bytearray] = {}
        self._asking: list[socket.socket] = []

    def __enter__(self) -> Self:
        """Nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all sockets."""
        for each in (self._listener, *self._clients, *self._upstreams):
            each.close()

    def connect(self, gateway_port: int, clients: int) -> None:
        """Open the clients' connections."""
        for _ in range(clients):
            client = socket.create_connection(("127.0.0.1", gateway_port))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setblocking(False)
            self._clients.append(client)

    def ask(self, request: bytes, count: int = 1) -> None:
        """Send the request on as many of the clients' connections, before the loop turns again."""
        for client in self._clients[:count]:
            client.setblocking(True)
            client.sendall(request)
            client.setblocking(False)

    async def asked(self, count: int = 1) -> None:
        """Wait until as many whole requests have reached the upstream, which were not answered yet."""
        try:
            await turn_until(lambda: self._take() >= count)
        except TimeoutError:
            early = b"".join(_waiting_in(client) for client in self._clients)
            raise AssertionError(f"the gateway did not ask the upstream; its clients got {early[:500]!r}") from None

    def reply(self, data: bytes, *, more: bool = False) -> None:
        """Send bytes to each connection that asked; unless there are `more`, they are its answer's last."""
        for upstream in self._asking:
            upstream.setblocking(True)
            upstream.sendall(data)
            upstream.setblocking(False)
        if not more:
            self._asking.clear()

    async def answers(self, ends: Callable[[bytes], bool], count: int = 1) -> list[bytes]:
        """Wait until what each client got satisfies `ends`, and take it."""
        got = [bytearray() for _ in range(count)]

        def all_ended() -> bool:
            for client, data in zip(self._clients, got, strict=False):
                data.extend(_waiting_in(client))
            return all(ends(bytes(data)) for data in got)

        await turn_until(all_ended)
        return [bytes(data) for data in got]

    def _take(self) -> int:
        try:
            while True:
                upstream, _ = self._listener.accept()
                upstream.setblocking(False)
                upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._upstreams[upstream] = bytearray()
        except BlockingIOError:
            pass
        for upstream, data in self._upstreams.items():
            data.extend(_waiting_in(upstream))
            if is_whole(bytes(data)):
                self.received.append(bytes(data))
                self._asking.append(upstream)
                data.clear()
        return len(self._asking)


async def turn_until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0)


def wait_until_arrived(sockets: list[socket.socket], count: int) -> None:
    """Block, the loop with it, until the kernel has bytes for as many of the sockets: one turn then takes them all."""
    poller = select.poll()
    for each in sockets:
        if each.fileno() >= 0:
            poller.register(each.fileno(), select.POLLIN)
    deadline = time.monotonic() + PATIENCE_S
    while len(poller.poll(0)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError


def is_whole(data: bytes) -> bool:
    """Whether these are the bytes of a whole message with a length."""
    head, end, body = data.partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n")
    return bool(end and length) and len(body) == int(length[1] if length else 0)


def _waiting_in(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 20)
    except BlockingIOError:
        return b""
