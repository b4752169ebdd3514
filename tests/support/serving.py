"""`tollway serve` as a real process tree for tests: started, watched through /proc, and taken down by its own pids."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

READY_TIMEOUT_S = 45.0
WELCOMED = "built-in sandbox answers"
"""In the last line of the welcome."""

_ESTABLISHED, _CLOSE_WAIT = "01", "08"
"""States of a connection in /proc/net/tcp."""

SETTINGS = """
listen: {{ port: 0, shutdown_grace_s: 20 }}
data_dir: {data_dir}
log: {{ requests: false }}
upstreams:
  sandbox: {{ url: sandbox }}
routes:
  - {{ path: /v1/chat/completions, upstream: sandbox, dialect: openai }}
  - {{ path: /v1/*, upstream: sandbox, dialect: plain }}
tiers:
  free: {{ limits: {{ tokens: {{ day: 100000 }} }} }}
default_tier: free
"""


def until(true: Callable[[], bool], within_s: float = 30.0) -> None:
    """Poll until it is true; fail when it isn't in time."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie doesn't."""
    return _state(pid) not in {"", "Z"}


def stopped(pid: int) -> bool:
    """Whether the process stands still, by SIGSTOP."""
    return _state(pid) == "T"


def _state(pid: int) -> str:
    """Its letter in /proc; "" where there is no such process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def _children(pid: int) -> list[int]:
    """Pids of a process's children; none of a dead one's. A look may miss one while another ends: so these are two."""
    found: set[int] = set()
    for _ in range(2):
        with suppress(OSError):
            found.update(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return sorted(found)


def _open_files(pid: int) -> set[str]:
    """What a process has open, as far as it is still there."""
    files: set[str] = set()
    with suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                files.add(str(file.readlink()))
    return files


def _server_side(url: str, client_port: int) -> tuple[str, int]:
    """The accepted socket of a connection to `url`, as /proc names it, and the bytes that wait in it; "" for none."""
    end = f":{urlsplit(url).port:04X} 0100007F:{client_port:04X} {_ESTABLISHED} "
    for row in Path("/proc/net/tcp").read_text().splitlines():
        if end in row:
            fields = row.split()
            return f"socket:[{fields[9]}]" if fields[9] != "0" else "", int(fields[4].partition(":")[2], 16)
    return "", 0


class Serving:
    """A `tollway serve` on `directory`/data, in a process group of its own."""

    def __init__(self, directory: Path, *arguments: str, settings: str = SETTINGS) -> None:
        self.data_dir = directory / "data"
        self._file = directory / "gateway.yaml"
        self._file.write_text(settings.format(data_dir=self.data_dir))
        self._arguments = arguments
        self._prefix: list[str] = []
        self.program = "gateway"
        """The module that is run; another one may change things from outside, then run `gateway`."""
        self.ending = WELCOMED
        """What the welcome is waited for to hold."""
        self.environment: dict[str, str] = {}
        self._seen: set[int] = set()
        self.log: list[str] = []
        self.welcome = ""
        self.url = ""
        self.process: subprocess.Popen[str]

    def launch(self, *more: str) -> subprocess.Popen[str]:
        """Start the command and wait for nothing."""
        command = [
            *self._prefix,
            sys.executable,
            "-m",
            self.program,
            "serve",
            "--file",
            str(self._file),
            *self._arguments,
            *more,
        ]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | self.environment,
        )

    def limit_file_size(self) -> None:
        """Let no file of the coming processes grow beyond 0 bytes."""
        self._prefix = ["/bin/sh", "-c", 'ulimit -f 0; exec "$@"', "sh"]

    def start(self, *more: str) -> Self:
        """Start, and wait until the welcome is printed."""
        self.process, self.log = self.launch(*more), []
        reader = threading.Thread(target=self._read_log, args=(self.process, self.log), daemon=True)
        reader.start()
        until(lambda: self.ending in "".join(self.log) or not reader.is_alive(), READY_TIMEOUT_S)
        self.welcome = "".join(self.log)
        found = re.search(r"ready on (http://\S+)", self.welcome)
        assert found, f"{self.welcome}{self.process.stderr and self.process.stderr.read()}"
        self.url = found[1]
        self.processes()
        return self

    @staticmethod
    def _read_log(process: subprocess.Popen[str], log: list[str]) -> None:
        """Keep reading, so that the log never fills the pipe."""
        assert process.stdout is not None
        with suppress(ValueError):
            log.extend(process.stdout)

    @property
    def key(self) -> str:
        """The key of the welcome; empty on a later start."""
        found = re.search(r"tw_\w{12}_\w+", self.welcome)
        return found[0] if found else ""

    def processes(self) -> dict[str, int]:
        """The living children's pids by name: `valkey-server`, `sandbox`, `worker 0` and so on; none of a dead tree."""
        found: dict[str, int] = {}
        for child in _children(self.process.pid):
            with suppress(OSError):  # it may be ending now
                if alive(child):
                    found[Path(f"/proc/{child}/comm").read_text().strip()] = child
        self._seen.update(found.values())
        return found

    def worker_of(self, client_port: int) -> str:
        """Which worker has accepted the connection of a client on loopback; "" for none so far."""
        mine, _ = _server_side(self.url, client_port)
        for name, pid in self.processes().items():
            if name.startswith("worker") and mine and mine in _open_files(pid):
                return name
        return ""

    def is_left(self) -> bool:
        """Whether the workers know of every client's leaving: no connection to them is open on their side."""
        mine = f":{urlsplit(self.url).port:04X}"
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return not any(row[1].endswith(mine) and row[3] in {_ESTABLISHED, _CLOSE_WAIT} for row in rows)

    def has_read(self, client_port: int) -> bool:
        """Whether a worker has accepted the connection of a client on loopback, and read all that was sent over it."""
        mine, unread = _server_side(self.url, client_port)
        return bool(mine) and not unread

    def get(self, path: str, key: str) -> int:
        """Status of a GET on a connection of its own; 0 where none could be had."""
        address = urlsplit(self.url)
        link = http.client.HTTPConnection(str(address.hostname), address.port, timeout=15)
        try:
            link.request("GET", path, headers={"authorization": f"Bearer {key}"})
            return link.getresponse().status
        except OSError:
            return 0
        finally:
            link.close()

    def known_to_each(self, path: str, key: str, workers: int) -> None:
        """Ask until each of so many workers has answered with 200: who did, knows the key."""
        address = urlsplit(self.url)
        answered: set[str] = set()

        def asked() -> bool:
            with closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)) as link:
                link.request("GET", path, headers={"authorization": f"Bearer {key}"})
                answer = link.getresponse()
                if answer.status == 200:
                    answered.add(self.worker_of(link.sock.getsockname()[1]))
                answer.read()
            return len(answered - {""}) == workers

        until(asked)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the supervisor and wait; its exit status."""
        self.processes()
        self.process.send_signal(number)
        return self.process.wait(60)

    def orphans(self) -> list[int]:
        """Processes seen so far that still run."""
        return [pid for pid in self._seen if alive(pid)]

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing running, whatever the test did."""
        if self.process.poll() is None:
            self.processes()
            self.process.kill()
        for pid in self._seen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()
