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
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

READY_TIMEOUT_S = 20.0
WELCOMED = "built-in sandbox answers"
"""In the last line of the welcome."""

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


def until(true: Callable[[], bool], within_s: float = 10.0) -> None:
    """Poll until it is true; fail when it isn't in time."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie doesn't."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


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
        pid = self.process.pid
        found: dict[str, int] = {}
        with suppress(OSError):  # any of them may be ending now
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                if alive(int(child)):
                    found[Path(f"/proc/{child}/comm").read_text().strip()] = int(child)
        self._seen.update(found.values())
        return found

    def get(self, path: str, key: str) -> int:
        """Status of a GET on a connection of its own; 0 where none could be had."""
        address = urlsplit(self.url)
        link = http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)
        try:
            link.request("GET", path, headers={"authorization": f"Bearer {key}"})
            return link.getresponse().status
        except OSError:
            return 0
        finally:
            link.close()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the supervisor and wait; its exit status."""
        self.processes()
        self.process.send_signal(number)
        return self.process.wait(30)

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
