"""A journal's segment under damage: what is before the first wrong byte is read, and nothing ever raises."""

import struct
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from gateway.quota.journal_segment import JournalEntry, Kind, entries, framed

amounts = st.tuples(st.text(max_size=20), st.integers(0, 2**40), st.integers(0, 2**53))
journaled = st.builds(
    JournalEntry,
    st.sampled_from(Kind),
    st.text(max_size=40),
    st.text(max_size=40),
    st.integers(0, 2**50),
    st.lists(amounts, max_size=4).map(tuple),
    st.binary(max_size=200),
)
WRITTEN = [
    JournalEntry(Kind(number % 3), f"r{number}", "acme", 1_700_000_000_000, (("tokens/day", 0, number),), b"e" * number)
    for number in range(6)
]
WHOLE = b"".join(framed(entry) for entry in WRITTEN)
ENDS = [0]
for one in WRITTEN:
    ENDS.append(ENDS[-1] + len(framed(one)))


def read(data: bytes) -> list[JournalEntry]:
    """The entries that a segment of these bytes gives."""
    found = [entry for _, entry in entries(data)]
    assert None not in found
    return [entry for entry in found if entry is not None]


@given(st.lists(journaled, max_size=10))
def test_what_was_written_is_read(written: list[JournalEntry]) -> None:
    """D6: an undamaged journal loses nothing; whoever is billed by it pays what was used."""
    data = b"".join(framed(entry) for entry in written)
    found = list(entries(data))
    assert [entry for _, entry in found] == written
    assert not found or found[-1][0] == len(data)


def test_a_tail_torn_at_every_byte_costs_its_own_entry_alone() -> None:
    """A kill or a loss of power in the middle of a write: all entries before it are replayed."""
    for length in range(len(WHOLE) + 1):
        whole = sum(end <= length for end in ENDS[1:])
        assert read(WHOLE[:length]) == WRITTEN[:whole]


def test_a_wrong_bit_at_every_byte_yields_what_is_before_it() -> None:
    """A bad sector changes no amount that anyone is charged: the entry it hits is not believed."""
    for place in range(len(WHOLE)):
        for bit in (0x01, 0x80, 0xFF):
            damaged = bytearray(WHOLE)
            damaged[place] ^= bit
            before = sum(end <= place for end in ENDS[1:])
            assert read(bytes(damaged)) == WRITTEN[:before]


def test_an_entry_that_cannot_be_read_costs_itself_alone() -> None:
    """One of a version to come, or of a defect: whole by its checksum, it hides none behind it, and their numbers, by
    which each counts once, are what they were.
    """  # noqa: D205
    packed = b"\x93\x01\x02\x03"
    strange = struct.pack("<II", len(packed), crc32(packed)) + packed
    found = [entry for _, entry in entries(WHOLE[: ENDS[2]] + strange + WHOLE[ENDS[2] :])]
    assert found == [*WRITTEN[:2], None, *WRITTEN[2:]]


@given(st.binary(max_size=300), st.integers(0, 200))
def test_foreign_bytes_never_raise(foreign: bytes, zeros: int) -> None:
    """Whatever stands behind the last entry, zeros of a file system included, the entries are read."""
    assert read(WHOLE + bytes(zeros)) == WRITTEN
    assert read(foreign + WHOLE[:0])[:0] == []
    assert read(WHOLE + b"\xff" + foreign)[: len(WRITTEN)] == WRITTEN
