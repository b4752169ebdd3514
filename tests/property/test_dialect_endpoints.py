"""No body of a request upsets a dialect: it is understood, or refused in plain words (rows B1, F3)."""

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.dialects.dialect import Ask, Dialect
from gateway.dialects.multipart import LONGEST_FIELD_BYTES, parts
from gateway.dialects.openai_request import MOST_TOKENS
from gateway.dialects.registry import DIALECTS
from gateway.domain.faults import INVALID_BODY, Fault

FIELDS = (
    "model",
    "input",
    "instructions",
    "stream",
    "background",
    "max_output_tokens",
    "n",
    "size",
    "quality",
    "partial_images",
    "frame_count",
    "stream_format",
    "prompt",
    "messages",
    "max_tokens",
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["\ud800", "1024x1024", "99999x99999", "low", "0x0", "true", str(10**30), "-5"]),
    st.lists(st.integers(-5, 5), max_size=3),
)


def asked(dialect: Dialect, body: bytes) -> Ask | Fault:
    """What a dialect makes of a body."""
    try:
        return dialect.read_request(body, b"/v1/x")
    except Fault as fault:
        return fault


def check(body: bytes) -> None:
    """Every OpenAI dialect either holds some amount or says what is wrong."""
    for name, dialect in DIALECTS.items():
        if not name.startswith("openai"):
            continue
        ask = asked(dialect, body)
        if isinstance(ask, Fault):
            assert ask.kind is INVALID_BODY
            assert ask.public
            continue
        assert ask.prompt_bytes >= 0
        assert ask.max_output is None or 0 <= ask.max_output <= 2 * MOST_TOKENS
        assert ask.choices >= 1


@settings(max_examples=300, deadline=None)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8))
@example(fields={"input": "\ud800"})
@example(fields={"n": 10**12, "partial_images": 10**12, "size": "99999x99999"})
def test_any_json(fields: dict[str, Any]) -> None:
    """Numbers, texts and lists wherever they don't belong."""
    check(json.dumps(fields).encode())


LINES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [
            b"--x",
            b"--x--",
            b"--",
            b'Content-Disposition: form-data; name="n"',
            b'content-disposition: form-data; filename="a"; name="file"',
            b"Content-Disposition: form-data; name=prompt",
            b"",
            b"2",
            b"many",
            b"\xff\xfe",
        ]
    ),
)


@settings(max_examples=400, deadline=None)
@given(lines=st.lists(LINES, max_size=14), end=st.sampled_from([b"\r\n", b"\n"]))
def test_any_form(lines: list[bytes], end: bytes) -> None:
    """Forms cut anywhere, with boundaries inside, without heads, without ends."""
    body = end.join([b"--x", *lines])
    check(body)
    found = list(parts(body))
    assert sum(part.size_bytes for part in found) <= len(body)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(
        st.tuples(st.sampled_from(["n", "prompt", "file"]), st.booleans(), st.binary(max_size=300)), max_size=5
    )
)
def test_what_a_client_wrote_is_read(values: list[tuple[str, bool, bytes]]) -> None:
    """Whatever a file holds, short of the boundary itself, each part is found with its length."""
    boundary = b"0f1e2d3c4b5a69788796a5b4c3d2e1f0"
    body = b""
    for name, is_file, value in values:
        file = b'; filename="f"' if is_file else b""
        body += b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (
            boundary,
            name.encode(),
            file,
            value,
        )
    found = list(parts(body + b"--" + boundary + b"--\r\n"))

    assert [(part.name, part.is_file, part.size_bytes) for part in found] == [
        (name, is_file, len(value)) for name, is_file, value in values
    ]
    assert all(
        part.text == (b"" if is_file else value) for part, (_, is_file, value) in zip(found, values, strict=True)
    )


def test_a_long_field_is_not_copied() -> None:
    """A field of a megabyte that is no file costs its length alone."""
    head = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n'
    [part] = parts(head + b"a" * (LONGEST_FIELD_BYTES + 1) + b"\r\n--x--\r\n")

    assert (part.size_bytes, part.text) == (LONGEST_FIELD_BYTES + 1, b"")
