"""Who the client is behind proxies: what a trusted one wrote, and nothing that the client made up (F4)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.client_address import ClientAddress

TRUSTED = ("10.0.0.0/8", "2001:db8:ffff::/48")


def client(peer: str | None, *values: str, field: str = "x-forwarded-for") -> str | None:
    """The client's address of a request that came from `peer` with these fields."""
    scope = {
        "client": None if peer is None else (peer, 4000),
        "headers": [(field.encode(), value.encode("latin-1", "replace")) for value in values],
    }
    found = ClientAddress(TRUSTED, field).client(scope)
    return None if found is None else found[0]


@pytest.mark.parametrize(
    ("peer", "values", "expected"),
    [
        ("198.51.100.7", ("203.0.113.9",), "198.51.100.7"),
        ("10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("1.1.1.1, 203.0.113.9, 10.0.0.2",), "203.0.113.9"),
        ("10.0.0.1", ("1.1.1.1", "203.0.113.9"), "203.0.113.9"),
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.9, unknown",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.9:5555",), "203.0.113.9"),
        ("2001:db8:ffff::1", ("[2001:db8::7]:443",), "2001:db8::7"),
        ("::ffff:10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
        (None, ("203.0.113.9",), None),
    ],
)
def test_the_nearest_that_is_no_proxy_is_the_client(
    peer: str | None, values: tuple[str, ...], expected: str | None
) -> None:
    """A client that writes the header itself slows nobody but itself, and hides from nothing."""
    assert client(peer, *values) == expected


def test_forwarded_is_read_where_it_is_the_one() -> None:
    """RFC 7239, in its quotes and brackets; the header that the proxies don't write is not believed."""
    value = 'for=1.1.1.1, FOR="[2001:db8::7]:80";proto=https;by=10.0.0.1'
    assert client("10.0.0.1", value, field="forwarded") == "2001:db8::7"
    assert client("10.0.0.1", "proto=https", field="forwarded") == "10.0.0.1"
    scope = {"client": ("10.0.0.1", 1), "headers": [(b"x-forwarded-for", b"203.0.113.9")]}
    assert ClientAddress(TRUSTED, "forwarded").client(scope) == ("10.0.0.1", 0)


@given(st.lists(st.text(max_size=60), max_size=5), st.sampled_from(["x-forwarded-for", "forwarded"]))
def test_whatever_is_written_there_is_a_client(values: list[str], field: str) -> None:
    """Anyone may write anything into these headers."""
    assert client("10.0.0.1", *values, field=field)
