"""A key among the subprotocols that a WebSocket's client offers.

Browsers can set no header on a WebSocket, so OpenAI takes the key as the name of a subprotocol. Promises: it is read
like one in a header, and never goes upstream.
"""

from gateway.upstream.transport import RawHeaders

SUBPROTOCOLS = b"sec-websocket-protocol"
KEY_MARK = b"openai-insecure-api-key."


def offered_key(headers: RawHeaders) -> bytes | None:
    """The key, None where there is none."""
    keys = [one.removeprefix(KEY_MARK) for one in _offered(headers) if one.startswith(KEY_MARK)]
    return keys[0] if keys else None


def without_offered_key(headers: RawHeaders) -> RawHeaders:
    """The fields, with those subprotocols alone that name no key."""
    kept = [one for one in _offered(headers) if not one.startswith(KEY_MARK)]
    out = [field for field in headers if field[0] != SUBPROTOCOLS]
    return [*out, (SUBPROTOCOLS, b", ".join(kept))] if kept else out


def _offered(headers: RawHeaders) -> list[bytes]:
    return [one.strip() for name, value in headers if name == SUBPROTOCOLS for one in value.split(b",")]
