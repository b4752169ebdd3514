"""A key in the query: read, and taken out before the query goes upstream."""

import pytest

from gateway.edge.query_key import key_in, without_key


@pytest.mark.parametrize(
    ("query", "key", "rest"),
    [
        (b"key=tw_abc", b"tw_abc", b""),
        (b"alt=sse&key=tw_abc", b"tw_abc", b"alt=sse"),
        (b"key=%74w_abc&alt=sse", b"tw_abc", b"alt=sse"),
        (b"key=tw_abc&key=tw_def&a=1&b=%20", b"tw_abc", b"a=1&b=%20"),
        (b"key=AIza&alt=sse", None, b"key=AIza&alt=sse"),
        (b"monkey=tw_abc&&k", None, b"monkey=tw_abc&&k"),
    ],
)
def test_only_a_tollway_key_is_taken_out(query: bytes, key: bytes | None, rest: bytes) -> None:
    """F4: the caller's key never reaches the upstream, nor its logs; another API's `key` parameter is its own."""
    assert (key_in(query), without_key(query)) == (key, rest)
