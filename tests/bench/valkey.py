"""The bench's own Valkey: the one Tollway embeds, with its append-only file on, pinned apart from the gateway."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.quota.embedded import EmbeddedValkey
from tests.bench.processes import pinned

_CALLS = re.compile(rb"cmdstat_([^:]+):calls=(\d+)")
SCRIPT_CALLS = ("eval", "evalsha", "eval_ro", "evalsha_ro", "fcall")


@dataclass(frozen=True, slots=True)
class Valkey:
    """A running server: its process and its socket."""

    pid: int
    socket_path: Path

    @property
    def url(self) -> str:
        """The address as gateways take it."""
        return f"unix://{self.socket_path}"

    def calls(self) -> dict[str, int]:
        """How often each command ran since the start, those inside scripts too."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(5)
            link.connect(str(self.socket_path))
            link.sendall(b"INFO commandstats\r\n")
            with link.makefile("rb") as reply:
                text = reply.read(int(reply.readline()[1:]))
        return {name.decode(): int(calls) for name, calls in _CALLS.findall(text) if name != b"info"}


@contextmanager
def valkey(directory: Path, core: int) -> Iterator[Valkey]:
    """A fresh server in `directory`, stopped when the block ends."""
    server = EmbeddedValkey(directory / "valkey", directory / "valkey.sock")
    with pinned(core):
        server.start()
    try:
        server.wait_ready()
        yield Valkey(int((directory / "valkey" / "valkey.pid").read_text()), server.address)
    finally:
        server.stop()
