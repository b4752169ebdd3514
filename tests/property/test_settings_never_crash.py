"""Whatever a settings file holds, loading it ends in settings or in a SettingsError with lines; a typo is found."""

import copy
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.settings.load import SettingsError, load
from gateway.settings.model import Settings

SHIPPED = Path(__file__).parents[2] / "gateway.yaml"
TEXT = SHIPPED.read_text(encoding="utf-8")
GARBAGE: list[Any] = [
    *(None, True, 0, -1, 1.5, 10**40, float("inf"), "", " ", "x", "\x07", "/v1/*", "sandbox", "http://[", "//"),
    *([], [[]], {}, {"": 1}, {"a": {"b": []}}, "${UNSET}", "${SET}", "${", "$${", "${SET:-}", "no", "1e999", "Europe"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to be written over and over."""
    return tmp_path_factory.mktemp("settings") / "gateway.yaml"


def check(file: Path, data: bytes) -> Settings | SettingsError:
    """What loading these bytes ends in; anything but settings or a sound report fails the test."""
    file.write_bytes(data)
    try:
        return load(file, {"SET": "value"})
    except SettingsError as caught:
        error = caught
    assert error.mistakes
    lines = len(data.decode("utf-8", "replace").splitlines()) or 1
    assert all(0 <= mistake.line <= lines for mistake in error.mistakes)
    assert len(str(error).splitlines()) == len(error.mistakes)
    return error


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_refused_in_words(file: Path, data: bytes) -> None:
    """Guarantee: no bytes crash the loader; a reload by a broken editor must not take the gateway down."""
    assert isinstance(check(file, data), SettingsError)


@given(at=st.integers(0, len(TEXT)), cut=st.integers(0, 20), put=st.text("{}[]:,-*&!|>'\"%@`#$ \n\tab1~<", max_size=6))
def test_any_slip_in_the_shipped_file_is_survived(file: Path, at: int, cut: int, put: str) -> None:
    """Guarantee: an edit gone wrong anywhere ends in settings or a report, never in a traceback."""
    check(file, (TEXT[:at] + put + TEXT[at + cut :]).encode())


def holders(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree of mappings and lists."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    return [(node, key) for key in keys] + [place for key in keys for place in holders(node[key])]


@given(data=st.data())
def test_any_value_in_any_place_is_survived(file: Path, data: st.DataObject) -> None:
    """Guarantee: a broken part never hides the mistakes of another part behind a crash."""
    tree = yaml.safe_load(TEXT)
    for _ in range(data.draw(st.integers(1, 4))):
        container, key = data.draw(st.sampled_from(holders(tree)))
        container[key] = copy.deepcopy(data.draw(st.sampled_from(GARBAGE)))
    check(file, yaml.safe_dump(tree, sort_keys=False).encode())


def keys_of(node: yaml.Node | None, path: tuple[str, ...] = ()) -> list[yaml.ScalarNode]:
    """Every key of the shipped file that is a word of ours (names of upstreams and tiers are the operator's)."""
    if isinstance(node, yaml.SequenceNode):
        return [key for child in node.value for key in keys_of(child, (*path, "-"))]
    if not isinstance(node, yaml.MappingNode):
        return []
    own = [] if path in {("upstreams",), ("tiers",)} else [key for key, _ in node.value]
    return own + [key for key, child in node.value for key in keys_of(child, (*path, key.value))]


ROOT = yaml.compose(TEXT, Loader=yaml.SafeLoader)
KEYS = keys_of(ROOT)
WORDS = {key.value for key in KEYS}
NEIGHBOURS = {"proxy", "week", "api_keys"}
"""Keys that the shipped file does without, and that one slip makes of a key that it has."""


@given(key=st.sampled_from(KEYS), data=st.data())
def test_any_misspelt_key_is_found_at_its_line(file: Path, key: yaml.ScalarNode, data: st.DataObject) -> None:
    """Guarantee: a limit with a typo in it is never silently no limit; the report points at the very line."""
    at = data.draw(st.integers(0, len(key.value)))
    cut = data.draw(st.integers(0, 1))
    typo = key.value[:at] + data.draw(st.text(string.ascii_lowercase + "_", max_size=1)) + key.value[at + cut :]
    assume(typo and typo not in WORDS and typo not in NEIGHBOURS)
    start, end = key.start_mark.index, key.end_mark.index

    error = check(file, (TEXT[:start] + typo + TEXT[end:]).encode())

    assert isinstance(error, SettingsError)
    assert [mistake.line for mistake in error.mistakes if "unknown key" in mistake.problem] == [key.start_mark.line + 1]
