"""A settings file as a tree of YAML nodes that know their lines. Only plain YAML is taken.

Tags, anchors, aliases and merge keys are refused, and so are a second document and deep nesting: a settings file needs
none of them, and each is a way to attack or to mislead. Every failure is a SettingsError.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml

from gateway.settings.mistakes import Mistake, SettingsError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_BYTES = 1_048_576
_MAX_DEPTH = 16


def read(path: Path) -> str:
    """The file's text. Raises SettingsError where it is missing, unreadable, too large, or not UTF-8."""
    file = str(path)
    try:
        with path.open("rb") as opened:
            data = opened.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise _error(file, 0, "there is no such file; name another, or copy the shipped gateway.yaml") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a path"
        raise _error(file, 0, f"cannot be read: {reason}") from None
    if len(data) > _MAX_BYTES:
        raise _error(file, 0, f"is larger than {_MAX_BYTES} bytes, which no settings file should be")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(file, line, "is not UTF-8; save the file in that encoding") from None


def compose(text: str, file: str) -> yaml.MappingNode:
    """The file's one mapping. Raises SettingsError."""
    try:
        mistakes = tuple(Mistake(file, line, "", problem) for line, problem in _refused(text))
        if mistakes:
            raise SettingsError(mistakes)
        root = yaml.compose(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the two latter: escapes beyond Unicode
        raise SettingsError((_syntax_mistake(error, text, file),)) from None
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
        raise _error(file, 1, "the file is empty; the shipped gateway.yaml is a start")
    if not isinstance(root, yaml.MappingNode):
        raise _error(file, 1, "has to be a mapping of keys, like the shipped gateway.yaml")
    return root


def _refused(text: str) -> Iterator[tuple[int, str]]:
    """Lines and reasons of what is YAML, but not taken. Walks events, so that depth costs no stack."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                yield line, "a second document begins here; a settings file is one"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                yield line, f"is nested more than {_MAX_DEPTH} deep"
                return
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.AliasEvent):
            yield line, "aliases (*name) are not read; write the value out"
        if getattr(event, "anchor", None) and not isinstance(event, yaml.AliasEvent):
            yield line, "anchors (&name) are not read; write the value out"
        if getattr(event, "tag", None):
            yield line, "tags (!name) are not read; write the plain value"


def _syntax_mistake(error: Exception, text: str, file: str) -> Mistake:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return Mistake(file, _line_of_first_control(text), "", "is not YAML: it holds a character that YAML forbids")
    lines = text.splitlines() or [""]
    line = min(mark.line, len(lines) - 1)  # the parser may point past the end
    near = lines[line]
    hint = ""
    if "\t" in near[: len(near) - len(near.lstrip())]:
        hint = "; indent with spaces, not tabs"
    elif "${" in near:
        hint = '; inside { } or [ ], a placeholder needs quotes: "${NAME}"'
    problem = getattr(error, "problem", None) or "cannot be parsed"
    return Mistake(file, line + 1, "", f"is not YAML: {problem} (column {mark.column + 1}){hint}")


def _line_of_first_control(text: str) -> int:
    for number, line in enumerate(text.split("\n"), 1):
        if any(not letter.isprintable() and letter not in "\t\r" for letter in line):
            return number
    return 1


def _error(file: str, line: int, problem: str) -> SettingsError:
    return SettingsError((Mistake(file, line, "", problem),))
