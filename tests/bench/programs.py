"""The two C programs of the bench, compiled when they are older than their sources."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import BenchError

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the programs are: the mock upstream and the load client."""

    mock: Path
    load: Path


def compiled(directory: Path) -> Programs:
    """The programs, in `directory`. Raises BenchError without a C compiler, or when it refuses the source."""
    directory.mkdir(parents=True, exist_ok=True)
    return Programs(_compiled("mock", directory), _compiled("load", directory))


def _compiled(name: str, directory: Path) -> Path:
    source, program = HERE / f"{name}.c", directory / name
    newest = max(file.stat().st_mtime for file in (source, *HERE.glob("*.h")))
    if program.exists() and program.stat().st_mtime > newest:
        return program
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BenchError("the bench needs a C compiler: apt-get install gcc libc6-dev")
    draft = program.with_suffix(f".{os.getpid()}")  # another bench may compile beside this one
    done = subprocess.run(
        [compiler, "-O2", "-Wall", "-Wextra", "-o", draft, source], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise BenchError(f"{source.name} does not compile: {done.stderr[-2000:]}")
    draft.replace(program)
    return program
