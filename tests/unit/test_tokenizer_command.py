"""`tollway tokenizer`: an image build puts the vocabulary on disk, and failing tells why."""

import argparse
from pathlib import Path

import pytest
import tiktoken

from gateway.__main__ import main
from gateway.cli import tokenizer as command
from gateway.metering.tokenizer import Tokenizer, TokenizerError, install
from gateway.settings.data_files import data_file
from tests.support.encoding import NAME, install_tiny, tiny_encoding


def _run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The loader of tiktoken finds a proxy that refuses, and an empty cache."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))


async def test_install_keeps_what_tiktoken_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed counts as tiktoken does: the whole way from its registry to a count."""
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", tiny_encoding())

    install("cl100k_base", tmp_path)

    assert await Tokenizer("cl100k_base", tmp_path).count("hello world") == 2


@pytest.mark.usefixtures("offline")
def test_install_offline_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An image build without the internet fails with the way out, not with a traceback."""
    assert _run("install", "--encoding", "r50k_base", "--directory", tmp_path / "to") == 1

    text = capsys.readouterr().err
    assert "r50k_base could not be fetched" in text
    assert "TIKTOKEN_CACHE_DIR" in text


def test_install_of_an_unknown_encoding_names_the_known(tmp_path: Path) -> None:
    """A typing mistake is answered with the names to choose from."""
    with pytest.raises(TokenizerError, match="o200k_base"):
        install("o300k", tmp_path)


def test_show_tells_a_vocabulary_that_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An operator can check an image before it runs; the exit status says it to scripts."""
    assert _run("show", "--encoding", NAME, "--directory", tmp_path) == 1
    assert "tollway tokenizer install" in capsys.readouterr().err

    install_tiny(tmp_path)

    assert _run("show", "--encoding", NAME, "--directory", tmp_path) == 0
    assert str(tmp_path / "tiny.vocabulary") in capsys.readouterr().out


def test_broken_settings_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --encoding and --directory the settings decide; mistakes in them are told as `check` tells them."""
    config = tmp_path / "gateway.yaml"
    config.write_text("metering: {encodin: x}\n", encoding="utf-8")

    assert _run("show", "--file", config) == 2
    assert "encodin" in capsys.readouterr().err


def test_the_settings_are_those_of_every_other_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--file` before the command counts here too: else the vocabulary lands where the gateway never looks."""
    settings = data_file("config", "gateway.yaml").read_text(encoding="utf-8")
    file = tmp_path / "other.yaml"
    file.write_text(settings.replace("${TOLLWAY_TOKENIZER_DIR:-}", str(tmp_path / "words")), encoding="utf-8")

    assert main(["--file", str(file), "tokenizer", "show"]) == 1
    assert str(tmp_path / "words" / "o200k_base.vocabulary") in capsys.readouterr().err
