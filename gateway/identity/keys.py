"""The text of an API key and the digest that is kept of it.

A key is `tw_<id>_<secret>`: twelve letters and digits that name it in the open, and forty that prove it (238 bits).
Kept is only HMAC-SHA256 of the whole text under the deployment's digest key, so that a stolen ledger proves nothing.
No slow hash is needed, as the secret is random and far beyond guessing.
"""

import hmac
import secrets
import string

ID_LENGTH = 12
_SECRET_LENGTH = 40
_ALPHABET = string.ascii_letters + string.digits
_PREFIX = b"tw_"
_SECRET_AT = len(_PREFIX) + ID_LENGTH + 1
LENGTH = _SECRET_AT + _SECRET_LENGTH


def new_key(digest_key: bytes) -> tuple[str, str, bytes]:
    """A fresh key: its id, its text (to be shown once), and its digest (to be kept)."""
    key_id, secret = _random(ID_LENGTH), _random(_SECRET_LENGTH)
    text = f"tw_{key_id}_{secret}"
    return key_id, text, digest(digest_key, text.encode())


def digest(digest_key: bytes, token: bytes) -> bytes:
    """What the ledger keeps of a key: 32 bytes."""
    return hmac.digest(digest_key, token, "sha256")


def key_id_of(token: bytes) -> str | None:
    """The public id in a key's text; None for anything that can't be a key of ours."""
    if len(token) != LENGTH or not token.startswith(_PREFIX) or token[_SECRET_AT - 1 : _SECRET_AT] != b"_":
        return None
    key_id, secret = token[len(_PREFIX) : _SECRET_AT - 1], token[_SECRET_AT:]
    return key_id.decode() if key_id.isalnum() and secret.isalnum() else None


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
