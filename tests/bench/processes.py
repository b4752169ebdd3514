"""Processes of the bench: started on a core of their own, measured by the kernel's own clock, stopped by their pid.

CPU is read from each process's CPU clock (nanoseconds, user and system, dead threads included), which `/proc/PID/stat`
only gives in ticks of 10 ms. A process that won't start raises `BenchError` with the end of its log.
"""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 10.0
_CPUCLOCK_SCHED = 2
_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
"""Ends a process when this one is gone, even killed. Part of util-linux, which every Debian has."""


class BenchError(Exception):
    """Something the bench needs is missing or did not start. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the gateway under test has to itself, and which one carries the load, the mock and Valkey."""

    gateway: int
    others: int


def two_cores() -> Cores:
    """Two of the cores this process may use; raises BenchError where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise BenchError("the bench needs two cores: one for the gateway, one for load, upstream and Valkey")
    return Cores(usable[0], usable[1])


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started inside the block runs on `core` from its first instruction, its children and threads too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(
    command: Sequence[str | Path], core: int, log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The process of `command`, pinned, its output in `log`; stopped with all it started when the block ends."""
    with log.open("wb") as output, pinned(core):
        process = subprocess.Popen(
            [*_WITH_PARENT, *(str(word) for word in command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # The session is of our making: what is left in it was started by the process that has just ended.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def post(port: int, path: str, body: bytes, headers: Mapping[str, str]) -> int:
    """The status of one POST to the loopback; raises OSError or HTTPException."""
    link = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        link.request("POST", path, body, {"content-type": "application/json", **headers})
        answer = link.getresponse()
        answer.read()
    finally:
        link.close()
    return answer.status


def wait_until_200(
    process: subprocess.Popen[bytes], log: Path, port: int, path: str, body: bytes, headers: Mapping[str, str]
) -> None:
    """Post until the answer is 200; raises BenchError with the log's end when it never is."""
    deadline = time.monotonic() + START_TIMEOUT_S
    said = "no connection"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            status = post(port, path, body, headers)
        except (OSError, HTTPException) as error:
            said = str(error)
        else:
            if status == 200:
                return
            said = f"status {status}"
        time.sleep(0.02)
    tail = log.read_text(errors="replace")[-800:]
    raise BenchError(f"{process.args!r} does not answer ({said}): {tail}")


def wait_until_listening(process: subprocess.Popen[bytes], log: Path, port: int) -> None:
    """Connect until somebody listens on the port; raises BenchError with the log's end when nobody ever does."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return
        time.sleep(0.02)
    raise BenchError(f"{process.args!r} does not listen: {log.read_text(errors='replace')[-800:]}")


def installed(directory: Path, package: str, program: str) -> Path:
    """A program of a package, installed once in a virtual environment of its own."""
    path = directory / "bin" / program
    if not path.exists():
        print(f"installing {package} in {directory}", file=sys.stderr)
        venv.create(directory, with_pip=True)
        pip: list[str | Path] = [directory / "bin" / "pip", "install", "--quiet", "--quiet", package]
        if subprocess.run(pip, check=False).returncode:
            raise BenchError(f"{package} could not be installed in {directory}")
    return path


def tree(pid: int) -> list[int]:
    """`pid` and all its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def cpu_s(pids: Sequence[int]) -> float:
    """Seconds of CPU, user and system, that the processes have used since each began."""
    total = 0.0
    for pid in pids:
        with suppress(OSError):
            total += time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    return total


def rss_mb(pids: Sequence[int]) -> float:
    """Resident memory of the processes now, MiB; pages they share are counted in each."""
    total = 0
    for pid in pids:
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
    return total / 1024


def open_files(pids: Sequence[int]) -> int:
    """File descriptors that the processes have open."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            total += sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return total


def allow_many_files(wanted: int) -> bool:
    """Raise this process's limit on open files, which what it starts inherits; whether `wanted` are allowed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most == resource.RLIM_INFINITY or most >= wanted


def cores_busy_s(cores: Cores) -> float:
    """Seconds for which the two cores were busy with anything at all, this bench or not, from /proc/stat (ticks)."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *words = line.split()
        if name in {f"cpu{cores.gateway}", f"cpu{cores.others}"}:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")
