"""The text of API keys."""

import string

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.identity.keys import LENGTH, digest, key_id_of, new_key

DIGEST_KEY = b"k" * 32


def test_a_new_key_is_what_users_were_told() -> None:
    """F4: `tw_<id>_<secret>`: one word of letters and digits, which a double click selects but for its two bars."""
    key_id, text, kept = new_key(DIGEST_KEY)
    prefix, name, secret = text.split("_")

    assert (prefix, name, len(name), len(secret), len(text)) == ("tw", key_id, 12, 40, LENGTH)
    assert set(name + secret) <= set(string.ascii_letters + string.digits)
    assert key_id_of(text.encode()) == key_id
    assert kept == digest(DIGEST_KEY, text.encode())


def test_no_two_keys_are_alike() -> None:
    """Keys come from the system's randomness: a guessable or repeated one opens another's account."""
    keys = [new_key(DIGEST_KEY) for _ in range(200)]

    assert len({key_id for key_id, _, _ in keys}) == len({text[16:] for _, text, _ in keys}) == 200


def test_the_digest_hangs_on_the_whole_key_and_on_the_deployment() -> None:
    """E12: a ledger that is stolen without the digest key proves no key; and no part of a key is enough."""
    _, text, kept = new_key(DIGEST_KEY)
    other = "A" if text[-1] != "A" else "B"

    assert text[16:].encode() not in kept
    assert digest(b"other", text.encode()) != kept
    assert digest(DIGEST_KEY, (text[:-1] + other).encode()) != kept


@given(st.binary(max_size=80) | st.from_regex(rb"\Atw_[ -~]{53}\Z"))
@example(b"tw_abcdefghijkl_" + b"s" * 39 + b"\xe9")
@example(b"tw_abcdefghijk\n_" + b"s" * 40)
@example(b"tw_abcdefghijkl_" + b"s" * 39)
@example(b"sk-proj-abcdefghijkl")
@example(b"")
def test_foreign_bytes_are_no_key_or_give_a_plain_id(token: bytes) -> None:
    """Whatever a stranger sends, the ledger is asked for twelve letters and digits, or not at all."""
    key_id = key_id_of(token)

    assert key_id is None or (len(key_id) == 12 and key_id.isascii() and key_id.isalnum() and len(token) == LENGTH)
