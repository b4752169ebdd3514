"""The load program at work: one process for each load, on the core that is not the gateway's."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.processes import pinned
from tests.bench.target import Target
from tests.bench.workloads import Workload

GRACE_S = 30.0
"""For the answers that are under way when a load's time is up."""

Seen = dict[str, Any]
"""What the load program counted: see the head of load.c."""


class Sending:
    """A load under way."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._process = process
        self._patience_s = seconds + GRACE_S

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self._process.poll() is None

    def seen(self) -> Seen:
        """Wait for the end; the counts. Raises CalledProcessError or TimeoutExpired where the client fails."""
        with self._process as process:
            try:
                text, _ = process.communicate(timeout=self._patience_s)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
        seen: Seen = json.loads(text)
        return seen


@dataclass(frozen=True, slots=True)
class Client:
    """Sends workloads with the load program at `program`, pinned to `core`."""

    program: Path
    core: int
    scratch: Path

    def begin(
        self, target: Target, workload: Workload, seconds: float, *, body: bytes = b"", per_s: float = 0
    ) -> Sending:
        """Start a load. `body` replaces the workload's; with `per_s` requests fall due by the clock."""
        file = self.scratch / f"{workload.name}-{len(body)}.json"
        file.write_bytes(body or workload.body)
        headers = (target.spent_headers if workload.refused else target.headers) or {}
        words = [self.program, "-p", target.port, "-c", workload.connections, "-d", seconds, "-b", file]
        words += ["-P", workload.path, "-e", workload.status, "-R", workload.ramp_ms]
        words += ["-r", per_s] if per_s else []
        for name, value in headers.items():
            words += ["-H", f"{name}: {value}"]
        with pinned(self.core):
            process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE)
        return Sending(process, seconds)

    def send(self, target: Target, workload: Workload, seconds: float, *, body: bytes = b"", per_s: float = 0) -> Seen:
        """A load from its start to its end."""
        return self.begin(target, workload, seconds, body=body, per_s=per_s).seen()
