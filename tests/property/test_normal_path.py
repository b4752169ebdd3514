"""Paths that try to leave their route."""

from contextlib import suppress
from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.faults import Fault
from gateway.snapshot import normal_path

PIECES = st.sampled_from([
    b"v1", b"admin", b".", b"..", b"%2e", b"%2E%2e", b"%2f", b"%5c", b"\\", b"", b"a b", b"%00", b"%25", b"...", b"..;"
])  # fmt: skip


@given(st.lists(PIECES, max_size=8))
def test_nothing_climbs_out(pieces: list[bytes]) -> None:
    """F1: whoever decodes a forwarded path once finds no way up in it; else a caller reaches what no route opens."""
    raw = b"/" + b"/".join(pieces)
    try:
        path = normal_path(raw)
    except Fault:
        return
    assert path.startswith(b"/")
    decoded = unquote_to_bytes(path).replace(b"\\", b"/").split(b"/")
    assert b".." not in decoded
    assert normal_path(path) == path


@given(st.binary(max_size=60))
def test_any_bytes_end_in_a_path_or_a_fault(raw: bytes) -> None:
    """Whatever a client sends as its target is read or refused, never an error of ours."""
    with suppress(Fault):
        assert normal_path(raw).startswith(b"/")
