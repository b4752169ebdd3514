"""A request body of any bytes ends in an Ask or a Fault, and what is read is what an upstream will read (row B1)."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.dialect import Ask
from gateway.dialects.embedded_media import text_bytes
from gateway.dialects.openai_text import answer_text
from gateway.dialects.openai_usage import read_usage
from gateway.dialects.registry import DIALECTS
from gateway.domain.faults import INVALID_BODY, Fault

OPENAI = DIALECTS["openai"]

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = st.sampled_from(
    ["model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "messages", "usage", "choices"]
)
_VALUES = st.one_of(_JSON, st.booleans(), st.integers(-5, 10**6), st.just({"include_usage": True}), st.just([]))


def _spelled(pairs: list[tuple[str, Any]]) -> bytes:
    """A JSON object with its fields in this order, repeats and all."""
    return ("{" + ", ".join(f"{json.dumps(name)} : {json.dumps(value)}" for name, value in pairs) + "}").encode()


def _read(body: bytes) -> Ask | Fault:
    try:
        return OPENAI.read_request(body, b"/v1/chat/completions")
    except Fault as fault:
        return fault


@settings(max_examples=300, deadline=None)
@given(pairs=st.lists(st.tuples(_FIELDS, _VALUES), max_size=10))
def test_the_upstream_reads_what_was_read(pairs: list[tuple[str, Any]]) -> None:
    """With repeats in any order: what goes upstream differs from the caller's body in the usage option alone."""
    body = _spelled(pairs)
    asked = _read(body)
    if isinstance(asked, Fault):
        return

    told, sent = json.loads(body), json.loads(asked.body)
    assert asked.streamed == (sent.get("stream") is True)
    assert asked.model == (sent.get("model") or "")
    assert (asked.max_output is None) == (max(sent.get("max_tokens") or 0, sent.get("max_completion_tokens") or 0) <= 0)
    if asked.strip_usage:
        assert sent["stream_options"]["include_usage"] is True
        told["stream_options"] = {**(told.get("stream_options") or {}), "include_usage": True}
    assert sent == told


@settings(max_examples=300, deadline=None)
@given(body=st.binary() | st.lists(st.tuples(_FIELDS, _VALUES)).map(_spelled), cut=st.integers(0, 60))
def test_no_bytes_upset_the_readers(body: bytes, cut: int) -> None:
    """Bytes of any kind, whole or cut, end in an answer; only a request may be refused, and only by a fault."""
    for data in (body, body[:cut], body[cut:]):
        read_usage(data)
        answer_text(data)
        asked = _read(data)
        if isinstance(asked, Fault):
            assert asked.kind is INVALID_BODY
            assert asked.public
        else:
            assert asked.max_output is None or asked.max_output >= 0
            assert asked.choices >= 1


_MEDIA = st.lists(
    st.sampled_from(
        [b'"image_url"', b'"input_audio"', b'"file_data"', b'"data"', b":", b'"', b'"data:', b";base64,", b"A" * 300]
    ),
    max_size=20,
)


@settings(max_examples=300, deadline=None)
@given(pieces=_MEDIA)
def test_no_body_upsets_the_size_rules(pieces: list[bytes]) -> None:
    """However media and their look-alikes are mixed, the size is a count, and never below nothing."""
    assert text_bytes(b"".join(pieces)) >= 0
