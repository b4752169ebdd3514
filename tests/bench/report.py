"""What a run of the bench says: the machine, the aligned table, and the same as JSON with ratios."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.measure import Figures, Run, medians
from tests.bench.workloads import Workload

BASES = ("bare", "lean", "nginx", "envoy")
"""Targets that the others' CPU is divided by, where they run."""

BUSY = 0.9
FOREIGN = 0.1


@dataclass(frozen=True, slots=True)
class Row:
    """The runs of one workload on one target."""

    workload: Workload
    target: str
    runs: list[Run]

    @property
    def figures(self) -> Figures:
        """The medians of the runs."""
        return medians(self.runs)

    @property
    def problems(self) -> list[str]:
        """Where counts did not agree, over all runs."""
        return [problem for run in self.runs for problem in run.problems]


def machine() -> dict[str, str | int | float]:
    """The machine that the figures belong to."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def table(rows: Sequence[Row]) -> str:
    """The rows, aligned, a group for each workload."""
    by_key = {(row.workload.name, row.target): row.figures for row in rows}
    bases = [base for base in BASES if any(row.target == base for row in rows)]
    lines = [("workload", "target", "CPU µs", *(f"/{base}" for base in bases), *LATER_COLUMNS)]
    for row in rows:
        name, figures = row.workload.name, row.figures
        mark = "!" if row.problems else ""
        ratios = [_ratio(figures, by_key.get((name, base))) for base in bases]
        later = _later_cells(figures, by_key.get((name, "direct")))
        lines.append((name, row.target + mark, f"{figures.cpu_us:.1f}", *ratios, *later))
    return aligned(lines)


LATER_COLUMNS = (
    "Valkey µs",
    "per s",
    "core %",
    "p50 µs",
    "p99 µs",
    "first µs",
    "+direct",
    "scripts/req",
    "RSS MB",
)


def _later_cells(figures: Figures, direct: Figures | None) -> tuple[str, ...]:
    """Rate, latency to the answer's end and to its first byte, Redis calls and memory."""
    return (
        _shown(figures.valkey_cpu_us, 1),
        f"{figures.per_s:,.0f}" + ("~" if figures.busy < BUSY <= figures.others_busy else ""),
        f"{100 * figures.busy:.0f}",
        f"{figures.whole_p50_us:,.0f}",
        f"{figures.whole_p99_us:,.0f}",
        f"{figures.first_p50_us:,.0f}",
        f"{figures.first_p50_us - direct.first_p50_us:+,.0f}" if direct else "-",
        _shown(figures.scripts_per_request, 2),
        f"{figures.rss_mb:.0f}",
    )


def _ratio(figures: Figures, base: Figures | None) -> str:
    return f"{figures.cpu_us / base.cpu_us:.2f}" if base and base.cpu_us else "-"


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def aligned(lines: Sequence[Sequence[str]], names: int = 2) -> str:
    """The lines as columns: the first `names` to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        [
            word.ljust(width) if at < names else word.rjust(width)
            for at, (word, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    )
    return "\n".join("  ".join(words).rstrip() for words in padded)


def notes(rows: Sequence[Row]) -> list[str]:
    """What a reader must know first: counts that disagree, a client at its limit, a machine that was shared."""
    found = [
        f"! {row.workload.name} {row.target}: {problem}" for row in rows for problem in dict.fromkeys(row.problems)
    ]
    if any(row.figures.busy < BUSY <= row.figures.others_busy for row in rows):
        found.append("~ the client's core was full and the target's was not: the rate is the bench's, not the target's")
    worst = max((row.figures.foreign for row in rows), default=0.0)
    if worst > FOREIGN:
        found.append(
            f"other programs took up to {worst:.0%} of a core meanwhile: rates and times are worse than they are"
        )
    return found


def as_json(rows: Sequence[Row], settings: dict[str, Any]) -> dict[str, Any]:
    """The whole result: machine, settings, medians with every run behind them, and ratios within this run."""
    by_key = {(row.workload.name, row.target): row.figures for row in rows}
    results: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = row.workload.name
        others = [base for base in ("direct", *BASES) if base != row.target and (name, base) in by_key]
        bases = {base: by_key[name, base] for base in others}
        result = results.setdefault(name, {"meaning": row.workload.meaning, "unit": row.workload.unit, "targets": {}})
        result["targets"][row.target] = {
            **asdict(row.figures),
            "problems": row.problems,
            "against": {base: _against(row.figures, figures) for base, figures in bases.items()},
            "runs": [asdict(run) for run in row.runs],
        }
    return {"machine": machine(), "settings": settings, "workloads": results}


def _against(figures: Figures, base: Figures) -> dict[str, float | None]:
    return {
        "cpu": figures.cpu_us / base.cpu_us if base.cpu_us else None,
        "per_s": figures.per_s / base.per_s if base.per_s else None,
        "whole_p50": figures.whole_p50_us / base.whole_p50_us if base.whole_p50_us else None,
        "first_p50_added_us": figures.first_p50_us - base.first_p50_us,
    }
