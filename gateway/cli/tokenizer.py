"""Put tiktoken's vocabulary on disk, or tell whether it is there: `tollway tokenizer install|show`.

The encoding and its directory are those of the settings file, unless both are given: an image build has no file yet.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from gateway.cli.verbs import add_file
from gateway.metering.tokenizer import Tokenizer, TokenizerError, install, vocabulary_path
from gateway.settings.load import SettingsError, load
from gateway.settings.model import Settings

_FAILED, _MISTAKEN = 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and where."""
    parser.add_argument("action", choices=("install", "show"), help="fetch the vocabulary once, or check it")
    add_file(parser)
    parser.add_argument("--encoding", default="", help="default: metering.encoding of the settings")
    parser.add_argument("--directory", type=Path, help="default: metering.tokenizer_dir of the settings")


def run(args: argparse.Namespace) -> int:
    """Return 0 where the vocabulary is there and counts, 1 where it isn't, 2 where the settings are mistaken."""
    encoding, directory = args.encoding, args.directory
    if not encoding or directory is None:
        try:
            settings = load(args.file, os.environ)
        except SettingsError as error:
            print(error, file=sys.stderr)
            return _MISTAKEN
        encoding = encoding or settings.metering.encoding
        directory = directory or tokenizer_directory(settings)
    try:
        if args.action == "install":
            install(encoding, directory)
    except TokenizerError as error:
        print(error, file=sys.stderr)
        return _FAILED
    return asyncio.run(_show(encoding, directory))


def tokenizer_directory(settings: Settings) -> Path:
    """Where the settings have the vocabulary lie."""
    named = settings.metering.tokenizer_dir
    return Path(named).expanduser() if named else Path(settings.data_dir).expanduser() / "tokenizer"


async def _show(encoding: str, directory: Path) -> int:
    tokenizer = Tokenizer(encoding, directory)
    tokens = await tokenizer.count("not one token more, not one token lost")
    tokenizer.close()
    if tokens is None:
        print(tokenizer.problem, file=sys.stderr)
        return _FAILED
    print(f"{encoding}: {vocabulary_path(encoding, directory)} counts")
    return 0
