"""An example value for a JSON Schema, as models' structured outputs use it: objects, arrays, scalars, `$defs`.

Pure. Promises a value for any input: what it doesn't know becomes a text, and depth is bounded. Bounds on length and
patterns are not honoured; required fields, types, enums, constants and minimums are.
"""

from collections.abc import Callable
from typing import Any

DEPTH = 8
MOST_ITEMS = 16
"""A schema comes from the caller: neither its nesting nor its `minItems` may cost more than this."""


def example(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """A value that fits the schema; `root` is where `$ref` is looked up."""
    if not isinstance(schema, dict) or depth > DEPTH:
        return None
    root = schema if root is None else root
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    if "$ref" in schema:
        return example(_resolved(str(schema["$ref"]), root), root, depth + 1)
    for word in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(word), list) and schema[word]:
            return example(schema[word][0], root, depth + 1)
    make = _MAKERS.get(_type(schema))
    return make(schema, root, depth) if make else "example"


def _type(schema: dict[str, Any]) -> str:
    named = schema.get("type", "object" if "properties" in schema else "")
    if isinstance(named, list):
        named = next((name for name in named if name != "null"), "null")
    return str(named)


def _resolved(reference: str, root: Any) -> Any:
    found = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            found = found.get(part) if isinstance(found, dict) else None
    return found


def _object(schema: dict[str, Any], root: Any, depth: int) -> Any:
    fields = schema.get("properties")
    if not isinstance(fields, dict):
        return {}
    required = schema.get("required")
    names = [name for name in fields if name in required] if isinstance(required, list) else list(fields)
    return {name: example(fields[name], root, depth + 1) for name in names}


def _array(schema: dict[str, Any], root: Any, depth: int) -> Any:
    least = schema.get("minItems")
    count = min(least, MOST_ITEMS) if isinstance(least, int) and least > 0 and depth < 2 else 1
    return [example(schema.get("items"), root, depth + 1) for _ in range(count)] if "items" in schema else []


def _number(schema: dict[str, Any], _root: Any, _depth: int) -> Any:
    least = schema.get("minimum", 1)
    return least if isinstance(least, int | float) else 1


_MAKERS: dict[str, Callable[[dict[str, Any], Any, int], Any]] = {
    "object": _object,
    "array": _array,
    "integer": _number,
    "number": _number,
    "boolean": lambda _schema, _root, _depth: True,
    "null": lambda _schema, _root, _depth: None,
}
