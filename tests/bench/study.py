"""A study: a question that a row of the main table can't answer, asked of each target on its own.

Its targets are started for it alone and stopped after it, one after the other, so that what one question leaves behind
(a grown heap, a full log) is not in the answer to the next.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.client import Client
from tests.bench.report import aligned
from tests.bench.target import Candidate, Ground

Figures = dict[str, Any]
"""A row by column key; `target`, and `problems` where counts disagree, are always there."""


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of a study: its key, how the table names it, and how many digits it has."""

    key: str
    heading: str
    digits: int = 0


@dataclass(frozen=True, slots=True)
class Study:
    """`ask` puts the question to a target in a room of its own: one row, or several."""

    name: str
    meaning: str
    targets: tuple[str, ...]
    columns: tuple[Column, ...]
    ask: Callable[[Ground, Client, Candidate], list[Figures]]
    missing: Callable[[], str] = str
    """What keeps the machine from running it; empty when nothing does."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a study found, a row for each target."""

    study: Study
    rows: list[Figures]

    @property
    def problems(self) -> list[str]:
        """Where counts did not agree."""
        return [f"{row['target']}: {problem}" for row in self.rows for problem in row["problems"]]

    def table(self) -> str:
        """The rows, aligned, below what they mean."""
        study = self.study
        lines = [(study.name, *(column.heading for column in study.columns))]
        lines += [
            (
                row["target"] + ("!" if row["problems"] else ""),
                *(_shown(row.get(each.key), each) for each in study.columns),
            )
            for row in self.rows
        ]
        notes = [f"! {problem}" for problem in self.problems]
        return "\n".join([study.meaning, aligned(lines, names=1), *notes])


def investigate(
    study: Study, ground: Ground, client: Client, candidates: Sequence[Candidate], say: Callable[[str], None]
) -> Finding:
    """Ask the study's question of each target that it is for. Raises BenchError."""
    rows: list[Figures] = []
    if missing := study.missing():
        say(f"{study.name} is skipped: {missing}")
        return Finding(study, rows)
    for candidate in candidates:
        if candidate.name in study.targets:
            with ground.room(f"{study.name}-{candidate.name}") as room:
                rows += study.ask(room, client, candidate)
    say(f"{study.name} is done")
    return Finding(study, rows)


def _shown(value: float | str | None, column: Column) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:,.{column.digits}f}"
