"""`tollway check`: what it prints and how it exits."""

import argparse
from pathlib import Path

import pytest

from gateway.cli import check

SHIPPED = Path(__file__).parents[2] / "gateway.yaml"


def run(*words: str) -> int:
    """The command's exit status on these arguments."""
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    return check.run(parser.parse_args(words))


def test_a_sound_file_is_summed_up(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee: before a deploy an operator reads what the file means, and the shell reads 0; no secret is shown."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hunter2")

    assert run(str(SHIPPED)) == 0

    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{SHIPPED}: fine"
    assert "  openai: https://api.openai.com" in out
    assert "  /v1/chat/completions -> openai (openai)" in out
    free = "50 requests/hour (wait), 100,000 tokens/day (wait), 1,000,000 tokens/month (pay), 5 at once"
    assert f"  free (default): {free}" in out
    assert not any("hunter2" in line for line in out)


def test_what_is_unlimited_is_said_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guarantee: a tier without limits can't be overlooked, nor a route that takes only some methods."""
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "upstreams: { one: { url: sandbox } }\n"
        "routes: [{ path: /v1/*, methods: [GET, POST], upstream: one, dialect: plain }]\n"
        "tiers: { open: {}, local: { limits: { tokens: { day: 5 } }, time_zone: Asia/Tokyo } }\n"
        "default_tier: open\n",
        encoding="utf-8",
    )

    assert run(str(path)) == 0

    out = capsys.readouterr().out.splitlines()
    assert "  one: built-in sandbox" in out
    assert "  GET,POST /v1/* -> one (plain)" in out
    assert "  open (default): no limits" in out
    assert "  local: 5 tokens/day (wait), windows in Asia/Tokyo" in out


def test_a_broken_file_is_compared_with_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guarantee: who compares two files reads the mistakes of both, and why no difference is told."""
    new, old = tmp_path / "new.yaml", tmp_path / "old.yaml"
    sound = SHIPPED.read_text(encoding="utf-8")
    new.write_text(sound.replace("concurrency: 20\n", "concurrences: 20\n"), encoding="utf-8")
    old.write_text(sound.replace("level: info", "level: loud"), encoding="utf-8")

    assert run(str(new), "--diff", str(SHIPPED)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert (f"{new}:" in err, err.splitlines()[-1]) == (True, "1 mistake; the difference is told once there are none")

    assert run(str(new), "--diff", str(old)) == 2
    first, second, last = capsys.readouterr().err.splitlines()
    assert (first.partition(":")[0], second.partition(":")[0]) == (str(new), str(old))
    assert last == "2 mistakes; the difference is told once there are none"


def test_a_difference_is_shown_by_when_it_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guarantee: before a plan is changed an operator reads what would change, and whether it needs a restart."""
    new = tmp_path / "new.yaml"
    text = SHIPPED.read_text(encoding="utf-8")
    for old, other in (("concurrency: 20\n", "concurrency: 30\n"), ("level: info", "level: debug")):
        assert old in text
        text = text.replace(old, other)
    new.write_text(text, encoding="utf-8")

    assert run(str(new), "--diff", str(SHIPPED)) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{new}: fine",
        "at a reload:",
        "  ~ tiers.premium.concurrency: 20 -> 30",
        "needs a restart:",
        "  ~ log.level: info -> debug",
    ]
    assert run(str(new), "--diff", str(new)) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["nothing differs"]


def test_a_broken_file_fails_with_every_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guarantee: a pipeline stops at status 2, with nothing on standard output to mistake for a summary."""
    (tmp_path / "gateway.yaml").write_text("listne: {}\nlog: { level: loud }\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    assert run() == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert 'gateway.yaml:1: listne: unknown key; did you mean "listen"?' in printed.err
    assert "gateway.yaml:2: log.level: is not a known word" in printed.err
    assert printed.err.splitlines()[-1] == "6 mistakes"
