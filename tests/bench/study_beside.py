"""What a caller feels of others: a light client's latency alone, beside long prompts, and beside a storm of refusals.

The light client asks by the clock, whatever becomes of its answers, so that each wait is seen: the worst ones tell the
longest time for which the gateway did nothing else.
"""

from dataclasses import dataclass
from functools import partial

from tests.bench.audit import Audit
from tests.bench.client import Client, Seen
from tests.bench.processes import cpu_s, tree
from tests.bench.study import Column, Figures, Study
from tests.bench.target import Candidate, Ground, Target
from tests.bench.workloads import LONG_PROMPT, Workload, json_body

LIGHT = Workload("light", 16, json_body(), "small JSON answers, asked by the clock")
LIGHT_PER_S = 500
SECONDS = 2.5
WARM_UP_S = 0.3


@dataclass(frozen=True, slots=True)
class Heavy:
    """What stands beside the light client, asked by the clock too: the same load for each target."""

    workload: Workload
    per_s: int


PROMPTS = Heavy(Workload("prompt100k", 8, json_body(LONG_PROMPT), "prompts of 100 KB"), 100)
STORM = Heavy(Workload("storm", 64, json_body(), "refusals", refused=True), 4000)

COLUMNS = (
    Column("alone_p50_us", "alone p50 µs"),
    Column("alone_p99_us", "p99 µs"),
    Column("beside_p50_us", "beside p50 µs"),
    Column("beside_p99_us", "p99 µs"),
    Column("beside_max_us", "max µs"),
    Column("heavy_per_s", "heavy per s"),
    Column("heavy_first_p50_us", "its first p50 µs"),
    Column("heavy_first_p99_us", "p99 µs"),
    Column("busy", "core %"),
)


def ask(heavy: Heavy, ground: Ground, client: Client, candidate: Candidate) -> list[Figures]:
    """The light client alone, then beside the heavy load."""
    target = candidate.start(ground)
    if not target.serves(heavy.workload):
        return []
    for workload in (LIGHT, heavy.workload):
        warming = Audit(ground, target)
        client.send(target, workload, WARM_UP_S)
        warming.settle()
    audit = Audit(ground, target)
    alone = client.send(target, LIGHT, SECONDS, per_s=LIGHT_PER_S)
    used = -cpu_s(tree(target.pid))
    beside, heard = _together(target, client, heavy)
    used += cpu_s(tree(target.pid))
    counted = audit.close([(LIGHT, alone), (LIGHT, beside), (heavy.workload, heard)])
    return [{"target": target.name, "problems": counted.problems, **_figures(alone, beside, heard, used)}]


def _together(target: Target, client: Client, heavy: Heavy) -> tuple[Seen, Seen]:
    sending = client.begin(target, heavy.workload, SECONDS, per_s=heavy.per_s)
    beside = client.send(target, LIGHT, SECONDS, per_s=LIGHT_PER_S)
    return beside, sending.seen()


def _figures(alone: Seen, beside: Seen, heard: Seen, used_s: float) -> Figures:
    return {
        "alone_p50_us": alone["whole_us"]["p50"],
        "alone_p99_us": alone["whole_us"]["p99"],
        "beside_p50_us": beside["whole_us"]["p50"],
        "beside_p99_us": beside["whole_us"]["p99"],
        "beside_max_us": beside["whole_us"]["max"],
        "heavy_per_s": heard["answers_in_window"] / heard["seconds"],
        "heavy_first_p50_us": heard["first_us"]["p50"],
        "heavy_first_p99_us": heard["first_us"]["p99"],
        "busy": 100 * used_s / SECONDS,
    }


PROMPT100K = Study(
    "prompt100k",
    f"A light client ({LIGHT_PER_S} a second) alone, and beside {PROMPTS.per_s} prompts of 100 KB a second:",
    ("direct", "bare", "lean", "tollway", "nginx", "envoy"),
    COLUMNS,
    partial(ask, PROMPTS),
)
MIXED = Study(
    "mixed",
    f"A light client ({LIGHT_PER_S} a second) alone, and beside a storm of {STORM.per_s:,} refusals a second:",
    ("tollway", "nginx", "envoy"),
    COLUMNS,
    partial(ask, STORM),
)
