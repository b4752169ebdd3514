"""The bench's own Valkey: the one Tollway embeds, with its append-only file on, pinned apart from the gateway."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.quota.embedded import OPTIONS, valkey_binary
from tests.bench.processes import START_TIMEOUT_S, BenchError, running

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
    """A fresh server in `directory`, stopped when the block ends. Raises BenchError when it does not start."""
    path, log = directory / "valkey.sock", directory / "valkey.log"
    options = {**OPTIONS, "dir": directory, "unixsocket": path}
    command: list[str | Path] = [
        valkey_binary(),
        *(word for name, value in options.items() for word in (f"--{name}", str(value))),
    ]
    with running(command, core, log) as process:
        deadline = time.monotonic() + START_TIMEOUT_S
        server = Valkey(process.pid, path)
        while not _answers(server):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"Valkey did not start: {log.read_text(errors='replace')[-800:]}")
            time.sleep(0.01)
        yield server


def _answers(server: Valkey) -> bool:
    try:
        server.calls()
    except (OSError, ValueError):
        return False
    return True
