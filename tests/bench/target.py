"""A target: one program between client and mock, or none, ready to be measured."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.bench.processes import Cores, running, wait_until_200
from tests.bench.valkey import Valkey
from tests.bench.workloads import PATH, TLS_PATH, Workload, json_body

BEARER = {"authorization": "Bearer sk-bench"}
SPENT_BEARER = {"authorization": "Bearer sk-spent"}


@dataclass(frozen=True, slots=True)
class TlsUpstream:
    """The mock behind TLS."""

    port: int
    ca_file: Path
    """The authority to trust, PEM."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Ground:
    """What every target is built upon. What it starts is pushed on `stack`, which stops it."""

    stack: ExitStack
    scratch: Path
    cores: Cores
    mock_port: int
    mock_pid: int
    cache: Path
    """Where targets that are not installed on the machine keep a virtual environment of their own."""
    tls: TlsUpstream | None = None
    """None where no workload needs it, or nothing can serve it."""

    def directory(self, name: str) -> Path:
        """An empty directory for a target's files."""
        path = self.scratch / name
        path.mkdir()
        return path

    @contextmanager
    def room(self, name: str) -> Iterator["Ground"]:
        """A ground for targets of a shorter life: they stop when the block ends."""
        with ExitStack() as stack:
            yield replace(self, stack=stack, scratch=self.directory(name))

    @property
    def mock_url(self) -> str:
        """Where the mock listens."""
        return f"http://127.0.0.1:{self.mock_port}"


@dataclass(frozen=True, slots=True)
class Booked:
    """What a target that keeps books has written down for the account that is measured."""

    requests: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Target:
    """A running target. `pid` is the root of the processes whose CPU and memory are its own."""

    name: str
    port: int
    pid: int
    headers: Mapping[str, str] = field(default_factory=lambda: BEARER)
    spent_headers: Mapping[str, str] | None = None
    """The key of an account whose plan is used up; None where the target refuses nothing."""
    valkey: Valkey | None = None
    books: Callable[[], Booked] | None = None
    """Reads the books; None where the target keeps none."""
    tls: bool = False
    """Whether `TLS_PATH` leads to an upstream over TLS."""

    def serves(self, workload: Workload) -> bool:
        """Whether the target can be asked this at all."""
        if workload.refused and self.spent_headers is None:
            return False
        return self.tls or workload.path != TLS_PATH


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target that can be started: what it does for a request, what it needs, and how it starts."""

    name: str
    duty: str
    missing: Callable[[], str]
    """What to install before it can run; empty when nothing is missing."""
    start: Callable[[Ground], Target]
    opt_in: bool = False


def serve(
    ground: Ground,
    name: str,
    command: list[str | Path],
    port: int,
    headers: Mapping[str, str],
    environ: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> int:
    """Start a gateway on its core and wait until it answers a chat request; the pid. Raises BenchError."""
    log = log or ground.scratch / f"{name}.log"
    process = ground.stack.enter_context(running(command, ground.cores.gateway, log, environ))
    wait_until_200(process, log, port, PATH, json_body(), headers)
    return process.pid
