"""WebSocket frames cut anywhere, and noise in their place."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.openai_realtime import RealtimeReader
from gateway.dialects.websocket_frames import FrameReader, close_frame


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A server's frame."""
    size = len(payload)
    head = bytes([opcode | 0x80 * fin, size if size < 126 else 126 if size < 65_536 else 127])
    return head + (b"" if size < 126 else struct.pack("!H" if size < 65_536 else "!Q", size)) + payload


payloads = st.one_of(st.binary(max_size=12), st.sampled_from([bytes(125), bytes(126), bytes(65_535), bytes(65_536)]))
messages = st.tuples(st.sampled_from([1, 2, 9, 10]), st.lists(payloads, min_size=1, max_size=3))


def wire_of(said: list[tuple[int, list[bytes]]]) -> tuple[bytes, list[bytes]]:
    """The frames of some messages, fragments with a ping in between, and the texts among them."""
    wire, texts = b"", []
    for opcode, parts in said:
        fragments = parts if opcode < 8 else parts[:1]
        for place, part in enumerate(fragments):
            last = place == len(fragments) - 1
            control = part[:125] if opcode >= 8 else part
            wire += frame(0 if place else opcode, control, fin=last)
            if not last:
                wire += frame(9, b"ping")
        if opcode == 1:
            texts.append(b"".join(parts))
    return wire, texts


@given(said=st.lists(messages, max_size=5), sizes=st.lists(st.integers(1, 70_000), max_size=6), by_byte=st.booleans())
def test_any_cutting_gives_the_same_texts(
    said: list[tuple[int, list[bytes]]], sizes: list[int], *, by_byte: bool
) -> None:
    """B3: what a session is charged must not depend on how TCP cut it."""
    wire, texts = wire_of(said)
    reader = FrameReader(10**6)
    if by_byte and len(wire) < 3_000:
        sizes = [1] * len(wire)
    got, at = [], 0
    for size in [*sizes, len(wire)]:
        got += reader.feed(wire[at : at + size])
        at += size

    assert got == texts
    assert not reader.mid_frame


@given(st.lists(messages, min_size=1, max_size=3), st.data())
def test_a_close_can_be_put_at_the_next_boundary(said: list[tuple[int, list[bytes]]], data: st.DataObject) -> None:
    """F1: a Close inside another frame would be read as its payload."""
    wire, _ = wire_of(said)
    cut = data.draw(st.integers(0, len(wire)))
    reader = FrameReader(0)
    reader.feed(wire[:cut])
    taken = reader.to_boundary(wire[cut:])

    assert not reader.mid_frame
    whole = FrameReader(0)
    whole.feed(wire[: cut + taken])
    assert not whole.mid_frame
    assert FrameReader(0).feed(close_frame(1001, "x" * 200)) == []


@given(st.binary(max_size=300))
def test_noise_raises_nothing_else(noise: bytes) -> None:
    """F1: an upstream's bytes are foreign; a reader that reads no text takes whatever comes."""
    FrameReader(0).feed(noise)
    reader = RealtimeReader()
    with contextlib.suppress(ValueError):
        for text in FrameReader(64).feed(noise):
            reader.hear(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"type": "response.done"',
        b'{"type":"response.done","response":{"usage":{"input_tokens":"9"}}}',
        b'{"type":"response.done","response":{"usage":null}}',
        b'{"type":"x","usage":{"input_tokens":1},"a":"response.done"}',
    ],
)
def test_a_message_that_tells_no_usage_counts_nothing(text: bytes) -> None:
    """B3: what can't be read, or only quotes the mark, is no usage."""
    reader = RealtimeReader()

    assert not reader.hear(text)
    assert reader.usage is None
