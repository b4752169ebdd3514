"""YAML nodes into the types of `settings/model.py`, gathering every mistake on the way instead of stopping at one."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml
from msgspec import inspect

from gateway.settings.checks import did_you_mean
from gateway.settings.environment import ExpansionError, expand, variables
from gateway.settings.mistakes import Mistake
from gateway.settings.scalars import Scalar, ScalarError, expected, read_scalar

BROKEN: Final[Any] = ...
"""Stands where a value would, once its mistake is reported; so that what is around it is still looked at."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_/*.<-]{1,64}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: its dotted path, and the line of its key."""

    path: str
    line: int

    def key(self, key: str, line: int) -> "Place":
        """The place of a mapping's value."""
        shown = key if _PLAIN_KEY.fullmatch(key) else json.dumps(key[:64])
        return Place(f"{self.path}.{shown}" if self.path else shown, line)

    def item(self, index: int, line: int) -> "Place":
        """The place of a list's item."""
        return Place(f"{self.path}[{index}]", line)


class Conversion:
    """The conversion of one file. `mistakes` fills as `value` walks; `lines` tells the line of each path seen."""

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self._file = file
        self._environ = environ
        self.mistakes: list[Mistake] = []
        self.lines: dict[str, int] = {}

    def report(self, place: Place, problem: str) -> Any:
        """Note a mistake; answers BROKEN, to stand in the value's place."""
        self.mistakes.append(Mistake(self._file, place.line, place.path, problem))
        return BROKEN

    def value(self, node: yaml.Node, kind: inspect.Type, place: Place, extra: dict[str, Any] | None = None) -> Any:
        """The value of a node where `kind` is called for, or BROKEN with its mistakes noted."""
        self.lines[place.path] = place.line
        match kind:
            case inspect.Metadata():
                return self.value(node, kind.type, place, {**(extra or {}), **(kind.extra or {})})
            case inspect.UnionType():
                return self._union(node, kind, place, extra)
            case inspect.StructType() if isinstance(node, yaml.MappingNode):
                return self._section(node, kind, place)
            case inspect.DictType() if isinstance(node, yaml.MappingNode):
                return self._mapping(node, kind, place)
            case inspect.VarTupleType() if isinstance(node, yaml.SequenceNode):
                return self._sequence(node, kind, place)
            case inspect.StructType() | inspect.DictType() | inspect.VarTupleType():
                return self._wrong_shape(node, kind, place)
            case _ if isinstance(node, yaml.ScalarNode):
                return self._scalar(node, kind, place, extra or {})
            case _:
                return self.report(place, f"has to be {expected(kind)}")

    def _union(self, node: yaml.Node, kind: inspect.UnionType, place: Place, extra: dict[str, Any] | None) -> Any:
        if isinstance(node, yaml.ScalarNode):
            if _is_null(node) and any(isinstance(one, inspect.NoneType) for one in kind.types):
                return None
            wanted = [one for one in kind.types if not isinstance(one, inspect.StructType | inspect.NoneType)]
        else:
            wanted = [one for one in kind.types if isinstance(one, inspect.StructType)]
        if not wanted or isinstance(node, yaml.SequenceNode):
            return self.report(place, f"has to be {expected(kind)}")
        return self.value(node, wanted[0], place, extra)

    def _section(self, node: yaml.MappingNode, kind: inspect.StructType, place: Place) -> Any:
        fields = {one.name: one for one in kind.fields}
        values: dict[str, Any] = {}
        meant: set[str] = set()
        for key, child, at in self._entries(node, place):
            if key in fields:
                values[key] = self.value(child, fields[key].type, at)
                continue
            hint = did_you_mean(key, [name for name in fields if name not in values])
            meant.update(name for name in fields if f'"{name}"' in hint)
            self.report(at, f"unknown key{hint}")
        for name, one in fields.items():
            if name not in values and one.required:
                values[name] = BROKEN
                if name not in meant:
                    self.report(place, f'the key "{name}" is missing')
        return kind.cls(**values)

    def _mapping(self, node: yaml.MappingNode, kind: inspect.DictType, place: Place) -> Any:
        values: dict[Any, Any] = {}
        for key, child, at in self._entries(node, place):
            try:
                name = self._key(key, kind.key_type)
            except ScalarError as error:
                self.report(at, str(error))
                continue
            values[name] = self.value(child, kind.value_type, at)
        if len(node.value) < (kind.min_length or 0):
            return self.report(place, "is empty; at least one is needed")
        return values

    def _key(self, key: str, kind: inspect.Type) -> object:
        extra: dict[str, Any] = {}
        if isinstance(kind, inspect.Metadata):
            extra = kind.extra or {}
            kind = kind.type
        if isinstance(kind, inspect.EnumType):
            known = [str(member.value) for member in kind.cls]
            if key not in known:
                raise ScalarError("unknown key" + did_you_mean(key, known))
        return read_scalar(Scalar(key, plain=False, filled=False), kind, extra)

    def _sequence(self, node: yaml.SequenceNode, kind: inspect.VarTupleType, place: Place) -> Any:
        if len(node.value) < (kind.min_length or 0):
            return self.report(place, "is empty; at least one is needed")
        return tuple(
            self.value(child, kind.item_type, place.item(index, child.start_mark.line + 1))
            for index, child in enumerate(node.value)
        )

    def _entries(self, node: yaml.MappingNode, place: Place) -> Iterator[tuple[str, yaml.Node, Place]]:
        first_lines: dict[str, int] = {}
        for key_node, child in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.report(Place(place.path, line), "a key has to be one word, not a list or mapping")
                continue
            key = key_node.value
            at = place.key(key, line)
            if key in first_lines:
                self.report(at, f"is given twice; line {first_lines[key]} has it first")
            elif key == "<<" and not key_node.style:
                self.report(at, "merge keys (<<) are not read; write the keys out")
            else:
                first_lines[key] = line
                yield key, child, at

    def _scalar(self, node: yaml.ScalarNode, kind: inspect.Type, place: Place, extra: dict[str, Any]) -> Any:
        text = node.value
        at = place if not text else Place(place.path, node.start_mark.line + 1)
        try:
            scalar = Scalar(expand(text, self._environ), not node.style, "${" in text)
            return read_scalar(scalar, kind, extra)
        except ExpansionError as error:
            return self.report(at, str(error))
        except ScalarError as error:
            names = ", ".join(variables(text))
            return self.report(at, f"{error} (the value is filled from {names})" if names else str(error))

    def _wrong_shape(self, node: yaml.Node, kind: inspect.Type, place: Place) -> Any:
        if isinstance(node, yaml.ScalarNode) and _is_null(node):
            empty = "[]" if isinstance(kind, inspect.VarTupleType) else "{}"
            return self.report(place, f"has nothing in it; fill it, take the key out, or write {empty}")
        return self.report(place, f"has to be {expected(kind)}")


def _is_null(node: yaml.ScalarNode) -> bool:
    return Scalar(node.value, plain=not node.style, filled=False).is_null
