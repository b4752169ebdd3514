"""Reads CSV, JSON and JSON lines record by record, so that a file of any size takes the memory of one record.

Each record comes with its line. A record that can't be read comes as a ValueError that says why.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

Record = tuple[int, dict[str, Any] | ValueError]
"""The line that the record begins on, and the record."""

KINDS = (".csv", ".json", ".jsonl", ".ndjson")
_CHUNK = 65_536
_MOST_CHARS = 4 * 1024 * 1024
_BLANK = " \t\r\n,"


def records(path: Path, stream: IO[str]) -> Iterator[Record]:
    """The records of a file that is open as text, by the ending of its name. Raises ValueError for one not known."""
    kind = path.suffix.lower()
    if kind == ".csv":
        return _csv(stream)
    if kind == ".json":
        return _array(stream)
    if kind in KINDS:
        return _lines(stream)
    raise ValueError(f"{path.name}: the name of the file has to end in one of {', '.join(KINDS)}")


def _csv(stream: IO[str]) -> Iterator[Record]:
    reader = csv.reader(stream, strict=True)
    try:
        head = next(reader, [])
        line = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(head):
                yield line, ValueError(f"{len(row)} columns, where the first line has {len(head)}")
            elif row:
                yield line, dict(zip(head, row, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        yield reader.line_num, ValueError(f"no CSV from here on: {error}")


def _lines(stream: IO[str]) -> Iterator[Record]:
    for line, text in enumerate(stream, 1):
        if not text.strip():
            continue
        try:
            yield line, _object(json.loads(text))
        except ValueError as error:
            yield line, ValueError(f"no JSON object: {error}")


def _array(stream: IO[str]) -> Iterator[Record]:
    """The objects of one array, however it is broken into lines."""
    decoder, text, at, line, begun = json.JSONDecoder(), "", 0, 1, False
    while True:
        while at < len(text) and text[at] in _BLANK:
            line += text[at] == "\n"
            at += 1
        if at < len(text) and not begun:
            if text[at] != "[":
                yield line, ValueError("a .json file is one array of objects; write JSON lines as .jsonl")
                return
            begun, at = True, at + 1
            continue
        if at < len(text) and text[at] == "]":
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except ValueError as error:
            chunk = stream.read(_CHUNK)
            text, at = text[at:] + chunk, 0
            if not chunk or len(text) > _MOST_CHARS:
                yield line, ValueError(f"no JSON from here on: {error}")
                return
            continue
        yield line, value if isinstance(value, dict) else ValueError("no JSON object")
        line += text.count("\n", at, end)
        at = end


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it has to be an object, from { to }")  # noqa: TRY004  # a record that can't be read is one
    return value
