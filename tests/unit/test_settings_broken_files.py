"""Every kind of mistake in gateway.yaml is found at its line, told once, and told with what to do about it."""

import re
from pathlib import Path

import pytest

from gateway.settings.load import SettingsError, load

BROKEN = Path(__file__).parents[1] / "config" / "broken"
ENVIRON = {"WORD": "hunter2", "EMPTY": ""}
_EXPECTATION = re.compile(r"# expect: (?P<line>\d+): (?P<text>.+)")


def mistakes_of(path: Path, environ: dict[str, str] | None = None) -> list[str]:
    """The report on a file that has to be refused, one mistake an item."""
    with pytest.raises(SettingsError) as caught:
        load(path, ENVIRON if environ is None else environ)
    assert str(caught.value) == "\n".join(map(str, caught.value.mistakes))
    return [str(mistake) for mistake in caught.value.mistakes]


@pytest.mark.parametrize("path", sorted(BROKEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_broken_file_tells_its_one_mistake_at_its_line(path: Path) -> None:
    """Guarantee: one mistake, one line of report, with the line to mend; else an operator hunts it in production."""
    expected = _EXPECTATION.match(path.read_text(encoding="utf-8"))
    assert expected is not None

    report = mistakes_of(path)

    assert len(report) == 1, report
    assert report[0].startswith(f"{path}:{expected['line']}: {expected['text']}")
    assert "hunter2" not in report[0]


def test_there_are_broken_files_to_read() -> None:
    """Guarantee: the folder was found; without it the test above would pass on nothing."""
    assert len(list(BROKEN.glob("*.yaml"))) >= 30


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    """Guarantee: one run of `check` shows everything to mend, in the file's order; nobody mends one by one."""
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "listen:\n"
        "  prot: 1\n"
        "  workers: 0\n"
        "log: { level: loud }\n"
        "upstreams:\n"
        "  one: { url: nowhere, colour: red }\n"
        "routes:\n"
        "  - { path: /v1/*, upstream: two, dialect: klingon }\n"
        "  - { path: v1, upstream: one, dialect: plain }\n"
        "tiers:\n"
        "  free: { limits: { tokens: { dya: 1, day: -1 } }, time_zone: Mars }\n"
        "default_tier: fre\n",
        encoding="utf-8",
    )

    report = [line.removeprefix(f"{path}:").split(": ")[:2] for line in mistakes_of(path)]

    assert report == [
        ["2", "listen.prot"],
        ["3", "listen.workers"],
        ["4", "log.level"],
        ["6", "upstreams.one.url"],
        ["6", "upstreams.one.colour"],
        ["8", "routes[0].dialect"],
        ["8", "routes[0].upstream"],
        ["9", "routes[1].path"],
        ["11", "tiers.free.limits.tokens.dya"],
        ["11", "tiers.free.limits.tokens.day"],
        ["11", "tiers.free.time_zone"],
        ["12", "default_tier"],
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ":1: the file is empty"),
        (b"[", ":1: is not YAML"),
        (b"listen:\n  host: \xe9t\n", ":2: is not UTF-8"),
        ("listen: {}\n".encode("utf-16"), ":1: is not UTF-8"),
        (b"# " + b"x" * 1_048_576, ": is larger than 1048576 bytes"),
        (b"listne: " + b"[" * 15 + b"]" * 15, ":1: listne: unknown key"),
        (b"- " * 100_000, ":1: is nested more than 16 deep"),
        (b"[" * 100_000, ":1: is nested more than 16 deep"),
        (b'a: "\\UFFFFFFFF"\n', ":1: is not YAML"),
        (b"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", ":1: anchors"),
        (b"a: &a [*a]\n", ":1: anchors"),
        (b"default_tier: a\n" * 20_000, ":1: the key"),
        (b"%s: 1\n" % (b"k" * 1000), ":1: %s: unknown key" % ('"' + "k" * 64 + '"')),
        (b"listen: { port: 9%s }\n" % (b"0" * 5000), ":1: listen.port: is out of range"),
    ],
)
def test_what_is_no_settings_file_is_refused(tmp_path: Path, data: bytes, expected: str) -> None:
    """Guarantee: no file can crash, hang or exhaust the gateway that reads it; the operator learns what it is."""
    path = tmp_path / "gateway.yaml"
    path.write_bytes(data)

    assert mistakes_of(path)[0].startswith(f"{path}{expected}")


def test_each_anchor_and_alias_is_told_once(tmp_path: Path) -> None:
    """Guarantee: the report counts what is there to mend."""
    path = tmp_path / "gateway.yaml"
    path.write_text("a: &a\n  b: 1\nc: *a\n", encoding="utf-8")

    report = [line.removeprefix(f"{path}:")[:5] for line in mistakes_of(path)]

    assert report == ["1: an", "3: al"]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Guarantee: a wrong path is a sentence, not a traceback."""
    assert "there is no such file" in mistakes_of(tmp_path / "gateway.yaml")[0]
    assert "cannot be read" in mistakes_of(tmp_path)[0]
    assert "cannot be read" in mistakes_of(Path("a\0b"))[0]


def test_no_text_value_or_variable_is_quoted_in_a_report(tmp_path: Path) -> None:
    """Guarantee: a report can be pasted into a ticket; whatever setting holds the secret, the report does not."""
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "listen: { host: '${WORD} !', port: '${WORD}', prefix: '${WORD}' }\n"
        "redis: { url: 'redis://:hunter2@', timeout_ms: '${WORD}' }\n"
        "keys: { secret: '${WORD}' }\n"
        "log: { level: '${WORD}', requests: '${WORD}' }\n"
        "metering: { encoding: '${WORD}' }\n"
        "upstreams: { one: { url: 'http://me:hunter2@x', api_key: '${WORD} ${WORD}', proxy: 'hunter2' } }\n"
        "routes: [{ path: '${WORD}', upstream: '${WORD}', dialect: '${WORD}' }]\n"
        "tiers: { free: { limits: { tokens: { day: '${WORD}' } }, time_zone: '${WORD}', concurrency: '${WORD}' } }\n"
        "default_tier: '${WORD}'\n",
        encoding="utf-8",
    )

    report = mistakes_of(path)

    assert len(report) == 19
    assert not any("hunter2" in line for line in report)
