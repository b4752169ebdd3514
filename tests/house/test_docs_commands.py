"""What the documents tell people to type works: commands, the SDK example, and what they print."""

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from gateway.__main__ import COMMANDS
from gateway.cli.welcome import _lines
from gateway.dialects.registry import DIALECTS
from gateway.domain.limits import Remedy
from gateway.settings.load import load
from tests.house.test_docs import PAGES, ROOT
from tests.house.test_docs_faults import refused
from tests.support.serving import Serving

README = (ROOT / "README.md").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def blocks(language: str, text: str) -> list[str]:
    """The fenced examples of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[list[str]]:
    """Each command line of the shell examples, and each in backticks within the text, as words."""
    for block in blocks("sh", text):
        for line in block.replace("\\\n", " ").splitlines():
            yield shlex.split(line, comments=True)
    for inline in re.findall(r"`((?:tollway|make) [^`]+)`", text):
        yield shlex.split(inline)


def parse(words: list[str]) -> None:
    """Parse the words after `tollway` as the command line does. Raises SystemExit where it would complain."""
    assert words[0] in COMMANDS, words
    command = importlib.import_module(f"gateway.cli.{words[0]}")
    parser = argparse.ArgumentParser(prog=f"tollway {words[0]}")
    command.add_arguments(parser)
    parser.parse_args(words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one_that_is_understood(page: Path) -> None:
    """What is pasted from a page is never answered with a usage error (F8)."""
    for words in filter(None, commands(page.read_text(encoding="utf-8"))):
        if words[0] == "make":
            assert words[1] in TARGETS, words
        elif Path(words[0]).name == "tollway" and words[1] != "COMMAND":
            parse(words[1:])


def test_a_command_that_is_not_there_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    """The check above can fail: a verb, an option and a page's own way to write are looked at."""
    assert ["tollway", "usage", "acme", "--json"] in list(commands("```sh\ntollway usage acme --json  # all\n```\n"))
    with pytest.raises(SystemExit):
        parse(["accounts", "move", "acme"])
    with pytest.raises(AssertionError):
        parse(["account"])
    assert "invalid choice" in capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_in_an_example_is_there(page: Path) -> None:
    """Files that examples name by a path inside the checkout exist."""
    words = [word for block in blocks("sh", page.read_text(encoding="utf-8")) for word in block.split()]
    paths = [word for word in words if re.match(r"(config|lua|docs|tests)/|[\w-]+\.(lock|yaml)$", word)]

    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_readme_names_every_command() -> None:
    """A newcomer learns from one page what there is."""
    told = {words[1] for words in commands(README) if words[0] == "tollway"}

    assert told >= set(COMMANDS) - {"serve"}


def test_the_readme_shows_what_is_printed() -> None:
    """The text of the first start is that of the program, so that a newcomer knows to be on the way."""
    shown = next(block for block in blocks("text", README) if "Tollway is ready" in block)
    printed = _lines(load(ROOT / "gateway.yaml", {}), 8080, "demo", "tw_0ToAzffDKShd_…", ".venv/bin/tollway")

    assert shown in "\n".join(printed) + "\n"


def test_the_readme_shows_a_refusal_as_it_is() -> None:
    """Whoever writes a client from the README parses what really comes."""
    shown = msgspec.json.decode(blocks("json", README)[0])

    assert shown == msgspec.json.decode(DIALECTS["openai"].refusal_body(refused(Remedy.WAIT), "id"))


def test_the_readme_shows_the_shipped_tier() -> None:
    """The limits that are explained are those that a newcomer meets."""
    shipped = yaml.safe_load((ROOT / "gateway.yaml").read_text(encoding="utf-8"))

    assert yaml.safe_load(blocks("yaml", README)[0])["tiers"]["free"] == shipped["tiers"]["free"]


def test_the_sdk_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """F2: the README's lines for the OpenAI SDK work as they stand, with nothing but address and key put in."""
    example = blocks("python", README)[0]
    with Serving(tmp_path) as served:
        lines = example.replace("http://127.0.0.1:8080", served.url).replace("tw_…", served.key)
        assert lines.count(served.url) == lines.count(served.key) == 1
        names: dict[str, Any] = {}
        exec(compile(lines, "README.md", "exec"), names)
        names["client"].close()

    assert "Hello, toll road!" in capsys.readouterr().out
