"""2,000 streams open at once: what each costs in memory and CPU, and the longest silence that its client sees."""

import time

from tests.bench.audit import Audit
from tests.bench.client import Client, Seen, Sending
from tests.bench.processes import allow_many_files, cpu_s, rss_mb, tree
from tests.bench.study import Column, Figures, Study
from tests.bench.target import Candidate, Ground
from tests.bench.workloads import SLOW_MS, Workload, stream_body

STREAMS = 2000
FILES = 2 * STREAMS + 500
CHUNKS = 40
OPENING_S = 1.0
"""Streams are opened over this long, and none ends before the last is open."""

WARM_UP = stream_body(10)
SAMPLE_S = 0.05

WORKLOAD = Workload(
    f"streams{STREAMS}",
    STREAMS,
    stream_body(CHUNKS, " #slow"),
    f"{STREAMS:,} streams open at once, a chunk each {SLOW_MS} ms",
    "event",
    ramp_ms=int(1000 * OPENING_S),
)
WARM = Workload("warm", 64, WARM_UP, "short streams", "event")


def ask(ground: Ground, client: Client, candidate: Candidate) -> list[Figures]:
    """All streams, once."""
    target = candidate.start(ground)
    warming = Audit(ground, target)
    client.send(target, WARM, 0.3)
    warming.settle()
    audit = Audit(ground, target)
    pids = tree(target.pid)
    idle_mb, used = rss_mb(pids), -cpu_s(pids)
    peak_mb, seen = _watched(client.begin(target, WORKLOAD, OPENING_S), pids)
    counted = audit.close([(WORKLOAD, seen)])
    used += cpu_s(pids)
    return [
        {
            "target": target.name,
            "problems": counted.problems,
            "streams": seen["answers"],
            "cpu_us": used / max(1, seen["events"]) * 1e6,
            "idle_mb": idle_mb,
            "peak_mb": peak_mb,
            "kb_a_stream": (peak_mb - idle_mb) * 1024 / STREAMS,
            "first_p50_us": seen["first_us"]["p50"],
            "first_p99_us": seen["first_us"]["p99"],
            **{f"gap_{share}_ms": seen["gap_us"][share] / 1000 for share in ("p50", "p99", "max")},
        }
    ]


def _missing() -> str:
    return "" if allow_many_files(FILES) else f"a process may not open {FILES} files here (ulimit -n)"


def _watched(sending: Sending, pids: list[int]) -> tuple[float, Seen]:
    """The most memory that the processes had while the load went on."""
    peak_mb = 0.0
    while sending.running:
        peak_mb = max(peak_mb, rss_mb(pids))
        time.sleep(SAMPLE_S)
    return peak_mb, sending.seen()


STREAMS2000 = Study(
    WORKLOAD.name,
    f"{STREAMS:,} streams open at once, {CHUNKS} chunks each, one each {SLOW_MS} ms; a stream's longest wait for one:",
    ("direct", "bare", "lean", "tollway", "nginx", "envoy"),
    (
        Column("streams", "streams"),
        Column("cpu_us", "CPU µs/event", 1),
        Column("idle_mb", "idle MB", 1),
        Column("peak_mb", "peak MB", 1),
        Column("kb_a_stream", "KB/stream", 1),
        Column("first_p50_us", "first p50 µs"),
        Column("first_p99_us", "p99 µs"),
        Column("gap_p50_ms", "wait p50 ms", 1),
        Column("gap_p99_ms", "p99 ms", 1),
        Column("gap_max_ms", "max ms", 1),
    ),
    ask,
    _missing,
)
