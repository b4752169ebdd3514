"""What one worker counted, as it lies in a file for whichever worker is scraped, and for its own successor.

Written whole and renamed, so that a reader sees an old file or a new one, never a part. A file that can't be read
(another version, damage, none) counts as empty: metrics may restart from zero, the gateway never fails over them.
"""

import os
from pathlib import Path

import msgspec

Key = tuple[str | int, ...]
"""Label values, in the order of the family's labels."""

_SUFFIX = ".metrics"


class Snapshot(msgspec.Struct, frozen=True):
    """Counters by family and labels; histograms as counts per bucket (not cumulative), then the sum; gauges by name.

    `taken_s` is Unix seconds: gauges of a file that is no longer renewed are not believed.
    """

    worker: int = 0
    taken_s: float = 0.0
    counters: dict[str, dict[Key, float]] = {}
    histograms: dict[str, dict[Key, list[float]]] = {}
    gauges: dict[str, float] = {}


_decode = msgspec.msgpack.Decoder(Snapshot).decode


def worker_file(directory: Path, worker: int) -> Path:
    """The file of the worker in slot `worker` (from 0)."""
    return directory / f"{worker}{_SUFFIX}"


def write(path: Path, snapshot: Snapshot) -> None:
    """Replace the file. Raises OSError where the directory can't be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(msgspec.msgpack.encode(snapshot))
    fresh.replace(path)


def read(path: Path) -> Snapshot:
    """What the file holds, or an empty snapshot."""
    try:
        return _decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return Snapshot()


def read_all(directory: Path) -> list[Snapshot]:
    """Every worker's snapshot, past workers' too."""
    return [read(path) for path in sorted(directory.glob(f"*{_SUFFIX}"))]
