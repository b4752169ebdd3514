"""An array that comes in pieces is sent on element by element, and can be ended at any moment (rows B5, F3)."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.json_array import ArrayCutter

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text('a"\\[]{},\n ', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"\\[]{},', max_size=4), inner, max_size=3),
    max_leaves=6,
)
ELEMENTS = st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), max_size=4)
LAST = b'{"last": 1}'


def spelled(elements: list[dict[str, Any]], indent: int | None) -> bytes:
    """As Google spells it: the comma is sent ahead of the next element."""
    return b"[" + b"\n,\r\n".join(json.dumps(element, indent=indent).encode() for element in elements) + b"\n]\n"


@given(elements=ELEMENTS, indent=st.none() | st.just(2), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_what_is_put_behind_whole_elements_is_an_array(
    elements: list[dict[str, Any]], indent: int | None, cuts: list[int]
) -> None:
    """Whenever a stream is ended, clients parse the elements that came and the one that says why. Apps that take half
    an answer for a whole one are hurt by a mistake.
    """  # noqa: D205
    whole = spelled(elements, indent)
    cutter, sent = ArrayCutter(), b""
    for start, end in itertools.pairwise([0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]):
        sent += cutter.feed(whole[start:end])[1]
        if not cutter.ended:
            assert cutter.joint is not None
            got = json.loads(sent + cutter.joint + LAST + b"]")
            assert got == [*elements[: len(got) - 1], {"last": 1}]
    assert (sent, cutter.ended, cutter.joint) == (whole, True, None)


@given(elements=ELEMENTS, size=st.integers(1, 60))
def test_pieces_end_behind_elements(elements: list[dict[str, Any]], size: int) -> None:
    """A burst is cut into whole elements and what is left, and joined it is what it was."""
    whole = spelled(elements, 2)
    cutter, reader = ArrayCutter(), ArrayCutter()
    for start in range(0, len(whole), size):
        data = whole[start : start + size]
        pieces = cutter.split(data)
        assert b"".join(pieces) == data
        for piece in pieces[:-1]:
            assert reader.feed(piece)[1].endswith(piece)
        reader.feed(pieces[-1])
    assert reader.ended


def test_an_element_that_is_too_long_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No element is held without bound, and nothing is put inside one; behind it the array can be ended again."""
    monkeypatch.setattr("gateway.dialects.json_array.MAX_ELEMENT_BYTES", 10)
    cutter = ArrayCutter()
    assert cutter.feed(b'[{"a": "') == (b"", b"")
    assert cutter.feed(b"1234") == (b"", b'[{"a": "1234')
    assert cutter.joint is None
    assert cutter.feed(b'5"}\n')[1] == b'5"}'
    assert cutter.joint == b","
