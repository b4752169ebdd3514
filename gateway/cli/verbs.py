"""What the commands that have verbs share on the command line (`tollway accounts create`)."""

import argparse
import re
from pathlib import Path
from typing import Any

from gateway.cli.bad_input import BadInput

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def add_verb(verbs: "argparse._SubParsersAction[Any]", name: str, text: str) -> argparse.ArgumentParser:
    """A verb of a command; it takes `--file` too, so that the option may stand anywhere."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    add_file(parser)
    return parser


def add_file(parser: argparse.ArgumentParser) -> None:
    """`--file`. Left out, it is what `tollway --file` or the usual places say."""
    parser.add_argument("--file", type=Path, default=argparse.SUPPRESS, help="the settings file")


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="for programs: as the admin API tells it")


def seconds_of(duration: str) -> int:
    """Seconds in `30d`, `12h`, `90m`, `45s` or `2w`. Raises BadInput."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhdw])", duration)
    if match is None:
        raise BadInput(f"{duration!r} is no duration: write a number and s, m, h, d or w, like 30d")
    return int(match[1]) * _UNITS_S[match[2]]
