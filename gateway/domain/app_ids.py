"""Where apps say which conversation and message of theirs a request belongs to."""

import msgspec


class AppIds(msgspec.Struct, frozen=True):
    """Names of request headers in small letters, b"" for none; `metadata` has the body's own `metadata` looked at."""

    conversation_header: bytes = b""
    message_header: bytes = b""
    metadata: bool = False
