"""The JSON Schema in config/ says what the types say, and takes the shipped settings."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings.data_files import data_file
from gateway.settings.schema import rendered, schema

SHIPPED = Path(__file__).parents[2] / "gateway.yaml"
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": int | float, "boolean": bool}


def fits(value: Any, rule: dict[str, Any], definitions: dict[str, Any]) -> bool:
    """Whether a value fits a schema, of the few keywords that ours is made of; a keyword unknown here fails loudly."""
    told = set(rule) - {"title", "description", "default", "$schema", "$defs"}
    return all(_keyword_fits(key, rule, value, definitions) for key in told)


def _keyword_fits(key: str, rule: dict[str, Any], value: Any, definitions: dict[str, Any]) -> bool:
    asked = rule[key]
    checks: dict[str, Callable[[], bool]] = {
        "$ref": lambda: fits(value, definitions[asked.removeprefix("#/$defs/")], definitions),
        "anyOf": lambda: any(fits(value, one, definitions) for one in asked),
        "type": lambda: value is None if asked == "null" else _is(value, asked),
        "enum": lambda: value in asked,
        "pattern": lambda: re.search(asked, str(value)) is not None,
        "minLength": lambda: len(value) >= asked,
        "minItems": lambda: len(value) >= asked,
        "minProperties": lambda: len(value) >= asked,
        "minimum": lambda: value >= asked,
        "exclusiveMinimum": lambda: value > asked,
        "maximum": lambda: value <= asked,
        "required": lambda: set(asked) <= set(value),
        "items": lambda: all(fits(one, asked, definitions) for one in value),
        "properties": lambda: all(fits(one, asked[name], definitions) for name, one in value.items() if name in asked),
        "propertyNames": lambda: all(fits(name, asked, definitions) for name in value),
        "additionalProperties": lambda: _rest_fits(asked, rule, value, definitions),
    }
    return isinstance(value, TYPES.get(rule.get("type", ""), object)) and checks[key]()


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _rest_fits(asked: Any, rule: dict[str, Any], value: dict[str, Any], definitions: dict[str, Any]) -> bool:
    rest = [one for name, one in value.items() if name not in rule.get("properties", {})]
    return not rest if asked is False else all(fits(one, asked, definitions) for one in rest)


def test_the_schema_file_is_current() -> None:
    """Guarantee: an editor completes and checks what is read. `python -m gateway.settings.schema` remakes it."""
    assert data_file("config", "gateway.schema.json").read_text(encoding="utf-8") == rendered()


def test_the_shipped_file_fits_the_schema() -> None:
    """Guarantee: the sample that newcomers edit is not underlined in red from its first line on."""
    settings = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))

    assert fits(settings, schema(), schema()["$defs"])


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("listen", {"prot": 8080}),
        ("listen", {"port": 65_536}),
        ("listen", {"port": "8080"}),
        ("log", {"level": "loud"}),
        ("upstreams", {}),
        ("upstreams", {"my upstream": {"url": "sandbox"}}),
        ("routes", [{"path": "/"}]),
        ("tiers", {"free": {"limits": {"tokens": {"dya": 1}}}}),
        ("tiers", {"free": {"limits": {"token": {"day": 1}}}}),
        ("tiers", {"free": {"limits": {"tokens": {"day": -1}}}}),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(section: str, value: Any) -> None:
    """Guarantee: the schema is more than a list of names; an editor shows the mistake before `check` does."""
    settings = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    settings[section] = value

    assert not fits(settings, schema(), schema()["$defs"])


def test_the_schema_takes_placeholders_for_numbers() -> None:
    """Guarantee: `port: ${PORT:-8080}` is not underlined, as the loader reads it."""
    definitions = schema()["$defs"]

    assert fits({"port": "${PORT:-8080}"}, definitions["Listen"], definitions)
