"""A Tollway key in the query, as clients of Gemini may send theirs: `?key=tw_…`.

Promises: it is read like one in a header, and never goes upstream. A `key` that is none of ours is left alone: to many
an API it is a parameter like any other.
"""

from urllib.parse import unquote_to_bytes

KEY_PREFIX = b"tw_"


def key_in(query: bytes) -> bytes | None:
    """The key, None where there is none."""
    for part in query.split(b"&"):
        if _is_key(part):
            return unquote_to_bytes(part[4:])
    return None


def without_key(query: bytes) -> bytes:
    """The query without it, else as it came."""
    return b"&".join([part for part in query.split(b"&") if not _is_key(part)])


def _is_key(part: bytes) -> bool:
    return part.startswith(b"key=") and unquote_to_bytes(part[4:]).startswith(KEY_PREFIX)
