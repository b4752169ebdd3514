"""`tollway serve` as a newcomer meets it: the shipped settings in a directory of their own, and no provider's key."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gateway
from gateway.settings.data_files import data_file
from tests.support.serving import Serving

MOST_CONNECTIONS = 64
"""The kernel deals connections out by hash: that so many all fall on one of two workers happens never."""

LACKING = "not in the ledger yet"
"""What `tollway usage` says where a busy machine kept the flusher from its work for longer than it waits."""


class Newcomer(Serving):
    """The process tree, and the commands that one types beside it."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        super().__init__(directory, *arguments)
        self._directory = directory
        shutil.copyfile(data_file("config", "gateway.yaml"), directory / "gateway.yaml")
        settings = ("OPENAI_", "TOLLWAY_")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
        self._environment["PYTHONPATH"] = str(Path(gateway.__file__).parents[1])

    def launch(self, *more: str) -> subprocess.Popen[str]:
        """Start it, on any free port, and wait for nothing."""
        return subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--port", "0", *self._arguments, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=self._directory,
            env=self._environment,
        )

    def shell(self, line: str) -> str:
        """Paste a line into a shell in the directory; what it prints. It must succeed."""
        return typed(["/bin/sh", "-c", line], cwd=self._directory, env=self._environment)

    def tollway(self, words: str) -> str:
        """Type `tollway …`; what it prints."""
        return self.shell(f"{sys.executable} -m gateway {words}")

    @contextmanager
    def link_to_every_worker(self, path: str, key: str) -> Iterator[dict[str, HTTPConnection]]:
        """A kept-alive connection by worker, each of which has answered a GET with 200."""
        workers = {name: pid for name, pid in self.processes().items() if name.startswith("worker")}
        found: dict[str, HTTPConnection] = {}
        address = urlsplit(self.url)
        with ExitStack() as opened:
            for _ in range(MOST_CONNECTIONS):
                link = opened.enter_context(closing(HTTPConnection(str(address.hostname), address.port, timeout=30)))
                assert get(link, path, key)[0] == 200
                found.setdefault(_holder(link, workers), link)
                if len(found) == len(workers):
                    break
            assert set(found) == set(workers)
            yield found


def typed(words: Sequence[str], **where: Any) -> str:
    """Type a command, again as long as it says that what it shows lacks something yet. It must succeed."""
    lacking = True
    while lacking:
        ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30, **where)
        assert ended.returncode == 0, ended.stderr
        lacking = LACKING in ended.stderr
    return str(ended.stdout)


def get(link: HTTPConnection, path: str, key: str) -> tuple[int, dict[str, str], bytes]:
    """A GET with a key: status, fields by their lower-case names, body."""
    link.request("GET", path, headers={"authorization": f"Bearer {key}"})
    answer = link.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def _holder(link: HTTPConnection, workers: dict[str, int]) -> str:
    """The worker that holds the other end of a connection on 127.0.0.1, as Linux tells it."""
    ours, theirs = link.sock.getsockname()[1], link.sock.getpeername()[1]
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()]
    socket = next(
        f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{theirs:04X}") and row[2].endswith(f":{ours:04X}")
    )
    for name, pid in workers.items():
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(file.readlink()) == socket:
                    return name
    raise AssertionError(f"no worker holds {socket}")
