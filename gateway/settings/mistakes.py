"""Mistakes in a settings file: where each is, what is wrong and how to mend it.

A text here never holds a value that may be a secret: text values and what the environment holds are not quoted.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake. `line` counts from 1, 0 where the file has none; `path` is dotted, "" for the file as a whole."""

    file: str
    line: int
    path: str
    problem: str

    def __str__(self) -> str:
        """`gateway.yaml:12: tiers.free.limits.tokens.dya: unknown key; did you mean "day"?`."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.path, self.problem) if part)


class SettingsError(Exception):
    """A settings file that can't be used. Its text is the whole report, one mistake a line, in the file's order."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes
