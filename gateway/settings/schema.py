"""The JSON Schema of gateway.yaml, made from the types of `settings/model.py`, for editors that complete and check.

`python -m gateway.settings.schema` writes it to `config/gateway.schema.json`; a house test keeps that file current. It
says what can be said of one value: relations between settings, addresses and time zones are `tollway check`'s.
"""

from typing import Any

import msgspec

from gateway.settings.data_files import data_file
from gateway.settings.model import Settings

_PLACEHOLDER = {"type": "string", "pattern": r"^\$\{"}
_KEPT_OUTSIDE = ("title", "description", "default")


def schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12). Where it wants no free text, a `${NAME}` placeholder is allowed as well."""
    made: dict[str, Any] = _open_to_placeholders(msgspec.json.schema(Settings))
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Tollway's gateway.yaml"}
    return {**head, **made}


def rendered() -> str:
    """The schema as the file's text."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"


def _open_to_placeholders(node: Any) -> Any:
    if isinstance(node, list):
        return [_open_to_placeholders(one) for one in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") in {"integer", "number", "boolean"} or "enum" in node or "pattern" in node:
        outside = {key: node[key] for key in _KEPT_OUTSIDE if key in node}
        strict = {key: value for key, value in node.items() if key not in outside}
        return {**outside, "anyOf": [strict, _PLACEHOLDER]}
    kept = ("propertyNames", "default")  # a key has no placeholders, and a default is no schema
    return {key: value if key in kept else _open_to_placeholders(value) for key, value in node.items()}


if __name__ == "__main__":
    data_file("config", "gateway.schema.json").write_text(rendered(), encoding="utf-8")
