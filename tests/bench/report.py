"""What a run of the bench says: the machine, the aligned table, and the same as JSON with ratios."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.measure import Figures, Run, medians
from tests.bench.workloads import Workload

BASES = ("direct", "bare", "nginx")
BUSY = 0.9
FOREIGN = 0.1
COLUMNS = (
    "workload",
    "target",
    "CPU µs",
    "/bare",
    "/nginx",
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
"""CPU of the target per answer or event, this as ratios, rate, latency to the answer's end and to its first byte."""


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
    lines: list[tuple[str, ...]] = [COLUMNS]
    for row in rows:
        bases = {base: by_key.get((row.workload.name, base)) for base in BASES}
        lines.append(_cells(row, bases))
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _cells(row: Row, bases: dict[str, Figures | None]) -> tuple[str, ...]:
    figures, direct = row.figures, bases["direct"]
    rate = f"{figures.per_s:,.0f}" + ("~" if figures.busy < BUSY <= figures.others_busy else "")
    return (
        row.workload.name,
        row.target + ("!" if row.problems else ""),
        f"{figures.cpu_us:.1f}",
        _ratio(figures, bases["bare"]),
        _ratio(figures, bases["nginx"]),
        _shown(figures.valkey_cpu_us, 1),
        rate,
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


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    words = [
        word.ljust(width) if column < 2 else word.rjust(width)
        for column, (word, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(words).rstrip()


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
        bases = {base: by_key[name, base] for base in BASES if base != row.target and (name, base) in by_key}
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
