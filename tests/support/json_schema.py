"""Checks JSON against the part of JSON Schema (2020-12) that the OpenAPI document uses. Other keywords are errors."""

import re
from collections.abc import Callable, Mapping
from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "integer": int,
}
_NOTES = {"title", "description", "default", "format", "examples"}


def mismatches(value: Any, schema: dict[str, Any], components: dict[str, Any], at: str = "$") -> list[str]:
    """What is wrong with the value, a line each; nothing where it fits."""
    if "$ref" in schema:
        return mismatches(value, components[schema["$ref"].rpartition("/")[2]], components, at)
    wrong: list[str] = []
    for keyword, said in schema.items():
        if keyword in _NOTES:
            continue
        wrong += _CHECKS[keyword](value, said, schema, components, at)
    return wrong


def _type(value: Any, said: str, _schema: Any, _components: Any, at: str) -> list[str]:
    fits = isinstance(value, _TYPES[said]) and not (isinstance(value, bool) and said in {"integer", "number"})
    return [] if fits else [f"{at}: {value!r} is no {said}"]


def _any(value: Any, said: list[Any], _schema: Any, components: Any, at: str) -> list[str]:
    return [] if any(not mismatches(value, one, components, at) for one in said) else [f"{at}: {value!r} fits none"]


def _enum(value: Any, said: list[Any], _schema: Any, _components: Any, at: str) -> list[str]:
    return [] if value in said else [f"{at}: {value!r} is none of {said}"]


def _properties(value: Any, said: dict[str, Any], schema: Any, components: Any, at: str) -> list[str]:
    if not isinstance(value, dict):
        return []
    wrong = [f"{at}: {name} is missing" for name in schema.get("required", ()) if name not in value]
    wrong += [f"{at}: {name} is not told of" for name in value if name not in said]
    for name, one in said.items():
        if name in value:
            wrong += mismatches(value[name], one, components, f"{at}.{name}")
    return wrong


def _additional(value: Any, said: Any, schema: Any, components: Any, at: str) -> list[str]:
    if "properties" in schema or not isinstance(said, dict) or not isinstance(value, dict):
        return []
    return [line for name, one in value.items() for line in mismatches(one, said, components, f"{at}.{name}")]


def _items(value: Any, said: Any, _schema: Any, components: Any, at: str) -> list[str]:
    if not isinstance(value, list):
        return []
    return [line for place, one in enumerate(value) for line in mismatches(one, said, components, f"{at}[{place}]")]


def _within(value: Any, said: Any, schema: Any, _components: Any, at: str) -> list[str]:
    if not isinstance(value, int | float):
        return []
    fits = schema.get("minimum", value) <= value <= schema.get("maximum", value)
    return [] if fits else [f"{at}: {value} is beyond {said}"]


def _pattern(value: Any, said: str, _schema: Any, _components: Any, at: str) -> list[str]:
    return [] if not isinstance(value, str) or re.search(said, value) else [f"{at}: {value!r} is not {said}"]


def _length(value: Any, _said: Any, schema: Any, _components: Any, at: str) -> list[str]:
    if not isinstance(value, str):
        return []
    fits = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
    return [] if fits else [f"{at}: {value!r} is too long or too short"]


def _required(_value: Any, _said: Any, schema: Any, _components: Any, at: str) -> list[str]:
    return [] if "properties" in schema else [f"{at}: required without properties"]


_CHECKS: Mapping[str, Callable[[Any, Any, Any, Any, str], list[str]]] = {
    "type": _type,
    "anyOf": _any,
    "enum": _enum,
    "properties": _properties,
    "required": _required,
    "additionalProperties": _additional,
    "items": _items,
    "minimum": _within,
    "maximum": _within,
    "pattern": _pattern,
    "minLength": _length,
    "maxLength": _length,
}
