"""Example values for JSON Schemas that callers send."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.sandbox_schema import MOST_ITEMS, example

words = st.sampled_from(["type", "properties", "required", "items", "enum", "$ref", "anyOf", "minItems", "x", "const"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**9) | st.sampled_from(["object", "array", "string", "#", "#/x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=25,
)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "example"),
        ({"type": ["null", "integer"], "minimum": 7}, 7),
        ({"enum": ["a", "b"]}, "a"),
        ({"const": 0}, 0),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
        ({"properties": {"a": {"type": "number"}, "b": {}}, "required": ["a"]}, {"a": 1}),
        ({"$ref": "#/$defs/T", "$defs": {"T": {"type": "null"}}}, None),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
    ],
)
def test_the_value_fits(schema: Any, value: Any) -> None:
    """Apps that validate the sandbox's answers see them pass."""
    assert example(schema) == value


def test_a_schema_that_refers_to_itself_ends() -> None:
    """A caller can't hang the sandbox with a loop or a huge array."""
    loop = {"$ref": "#/$defs/Node", "$defs": {"Node": {"properties": {"next": {"$ref": "#/$defs/Node"}}}}}
    assert "next" in example(loop)

    assert len(example({"type": "array", "minItems": 10**9, "items": {"type": "null"}})) == MOST_ITEMS


@given(values)
def test_any_schema_gives_some_small_value(schema: Any) -> None:
    """Whatever a caller sends as a schema, the sandbox answers, with something that can be written as JSON."""
    assert len(msgspec.json.encode(example(schema))) < 1_000_000
