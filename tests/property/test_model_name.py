"""Putting another model's name into a request changes that name and no other byte."""

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.model_name import renamed_in_body, renamed_in_path
from gateway.domain.faults import Fault

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(['"model":"x"', "model", "\\", '\\"'])
KEYS = TEXTS.filter(lambda key: key != "model")
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.just("model"), inner, max_size=3),
    max_leaves=12,
)
BLANKS = st.text(" \t\n\r", max_size=2)
SPELLINGS = st.sampled_from(['"model"', '"mod\\u0065l"', '"\\u006dodel"'])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, str]:
    """A body with `model` once or twice, and the same with its value gone: `@` marks the places."""
    members = [(json.dumps(key), json.dumps(value, ensure_ascii=draw(st.booleans()))) for key, value in draw(PAIRS)]
    for _ in range(draw(st.integers(1, 2))):
        members.insert(draw(st.integers(0, len(members))), (draw(SPELLINGS), "@"))
    pieces = []
    for key, value in members:
        pieces.append(f"{draw(BLANKS)}{key}{draw(BLANKS)}:{draw(BLANKS)}\0{value}\0{draw(BLANKS)}")
    return draw(BLANKS) + "{" + ",".join(pieces) + "}" + draw(BLANKS), draw(TEXTS)


PAIRS = st.lists(st.tuples(KEYS, VALUES), max_size=5)


def filled(marked: str, name: str) -> bytes:
    """The body with `name` for each mark."""
    return marked.replace("\0@\0", name).replace("\0", "").encode()


@settings(max_examples=200, deadline=None)
@given(bodies(), TEXTS)
def test_only_the_name_changes(body: tuple[str, str], model: str) -> None:
    """F6: a changed byte elsewhere is another request than the caller's; a name left behind is another bill."""
    marked, before = body
    name = msgspec.json.encode(model).decode()
    assert renamed_in_body(filled(marked, json.dumps(before)), model) == filled(marked, name)
    assert json.loads(filled(marked, name))["model"] == model


@given(VALUES)
def test_a_body_without_a_model_is_as_it_was(value: Any) -> None:
    """F6: names inside messages, tools or schemas are not the model's."""
    body = json.dumps({"messages": value}).encode()
    assert renamed_in_body(body, "other") == body


@given(st.binary(max_size=40))
def test_foreign_bytes_never_crash(body: bytes) -> None:
    """A caller's broken body is a 400, not a 500."""
    with suppress(Fault):
        assert isinstance(renamed_in_body(body, "other"), bytes)


@pytest.mark.parametrize(
    ("path", "renamed"),
    [
        (b"/v1beta/models/a:generateContent", b"/v1beta/models/b%2F1:generateContent"),
        (b"/v1beta/models/a:streamGenerateContent?alt=sse", b"/v1beta/models/b%2F1:streamGenerateContent?alt=sse"),
        (b"/v1beta/models/a", b"/v1beta/models/b%2F1"),
    ],
)
def test_googles_paths(path: bytes, renamed: bytes) -> None:
    """F6: Google's API has the model in its path, which a name may not break out of."""
    assert renamed_in_path(path, "b/1") == renamed
