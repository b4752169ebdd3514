"""The house's measures: file and function sizes, imports where they belong, names that say something."""

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "gateway").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MOST_LINES, MEDIAN_LINES, FUNCTION_LINES, LUA_LINES = 400, 120, 50, 120
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base", "core"}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, methods and inner ones too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    """No file above 400 lines, no function above 50, no import inside a function, no name that says nothing: whoever
    carries this on would pay for it.
    """  # noqa: D205
    assert len(path.read_text().splitlines()) <= MOST_LINES
    assert path.stem not in EMPTY_NAMES
    for function in functions(path):
        assert (function.end_lineno or 0) - function.lineno < FUNCTION_LINES, function.name
        inner = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not inner, f"{function.name} imports at line {inner[0].lineno}"


def test_files_are_short_as_a_rule() -> None:
    """The median source file stays under 120 lines."""
    lengths = [len(path.read_text().splitlines()) for path in SOURCES]
    assert statistics.median(lengths) < MEDIAN_LINES


@pytest.mark.parametrize("path", sorted((ROOT / "lua").glob("*.lua")), ids=lambda path: path.name)
def test_a_script_is_one_verb(path: Path) -> None:
    """No Lua file above 120 lines."""
    assert len(path.read_text().splitlines()) <= LUA_LINES


def test_every_exception_to_a_rule_says_why() -> None:
    """Each ignored lint rule has its reason beside it, in pyproject.toml and in the code."""
    bare = [
        line
        for line in re.findall(r"^  \"[A-Z]+[0-9]*\",.*$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        if "#" not in line
    ]
    assert bare == []
    silent = []
    for path in SOURCES:
        above = ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            bare_here = re.search(r"# (noqa: [A-Z0-9, ]+|type: ignore\[[a-z-]+\])$", line) and "D205" not in line
            if bare_here and not above.strip().startswith("#"):
                silent.append(f"{path.relative_to(ROOT)}:{number}")
            above = line
    assert silent == []


def test_locks_name_hashes_and_no_index() -> None:
    """A lock file that names an index would send every user's install there."""
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
