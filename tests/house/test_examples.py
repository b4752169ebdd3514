"""The files of `config/examples/` are fine as they are, each has a journey of its own, and their README is true.

Operators copy them: a key that was renamed, or a row that nobody tests any more, would reach them first.
"""

import re
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.settings.data_files import data_file
from gateway.settings.environment import variables

EXAMPLES = data_file("config", "examples")
FILES = sorted(EXAMPLES.glob("*.yaml"))
README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
JOURNEYS = Path(__file__).parents[1] / "journey"
ROWS = [f"{system}{number}" for system, last in (("A", 8), ("B", 9), ("D", 10)) for number in range(1, last + 1)]


def journey(file: Path) -> Path:
    """The tests of an example."""
    return JOURNEYS / f"test_example_{file.stem.replace('-', '_')}.py"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_fine_as_it_is(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It starts without any variable set: `tollway check` finds nothing wrong with it."""
    for name in variables(file.read_text(encoding="utf-8")):
        monkeypatch.delenv(name, raising=False)

    assert main(("check", str(file))) == 0, capsys.readouterr().err


def test_every_example_is_served_by_a_journey() -> None:
    """There are three, each is told of in the README with its command, and its tests serve it by its name."""
    assert [file.stem for file in FILES] == ["chat-tokens", "snapshot-api", "subscriptions"]
    for file in FILES:
        assert f"tollway serve --file config/examples/{file.name}" in README
        assert f'Example("{file.stem}"' in journey(file).read_text(encoding="utf-8")


def test_the_readme_names_every_row_and_test() -> None:
    """Each row of the three systems is there once, with tests that exist, or with the words that it is not built."""
    rows = re.findall(r"^\| ([A-D]\d+) \|(.*)\|$", README, re.MULTILINE)
    told = [name for _, text in rows for name in re.findall(r"`(test_\w+)`", text)]
    there = [name for file in FILES for name in re.findall(r"^def (test_\w+)", journey(file).read_text(), re.MULTILINE)]

    assert [row for row, _ in rows] == ROWS
    assert set(told) == set(there)
    assert [row for row, text in rows if "`test_" not in text and "not built yet" not in text] == []
