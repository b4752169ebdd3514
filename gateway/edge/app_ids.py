"""Notes which conversation and message of the app a request belongs to, for its usage event. Nothing is decided by it.

Only where the settings name a place. Never fails: an id that is empty, too long or not plain text is left out, as half
of one would be another's.
"""

from typing import Any

import msgspec

from gateway.dialects.json_body import UNREADABLE
from gateway.domain.app_ids import AppIds
from gateway.edge.exchange import Exchange

LONGEST = 128
"""Characters of an id. Both stand in every event, and the usage stream holds a million of these at worst."""


class _Metadata(msgspec.Struct, gc=False):
    conversation_id: Any = None
    message_id: Any = None


class _Body(msgspec.Struct, gc=False):
    metadata: _Metadata | None = None


_body = msgspec.json.Decoder(_Body)


def note_ids(places: AppIds, exchange: Exchange, body: object) -> None:
    """Put the ids into the exchange. A header counts before the body's `metadata`."""
    for name, value in exchange.scope["headers"]:
        if name == places.conversation_header:
            exchange.conversation_id = _fit(value.decode("latin-1"))
        elif name == places.message_header:
            exchange.message_id = _fit(value.decode("latin-1"))
    if places.metadata and isinstance(body, bytes) and b'"metadata"' in body:
        _note_metadata(exchange, body)


def _note_metadata(exchange: Exchange, body: bytes) -> None:
    try:
        told = _body.decode(body).metadata
    except UNREADABLE:
        return
    if told is not None:
        exchange.conversation_id = exchange.conversation_id or _fit(told.conversation_id)
        exchange.message_id = exchange.message_id or _fit(told.message_id)


def _fit(value: Any) -> str:
    """The id, "" for what is none."""
    text = value.strip() if isinstance(value, str) else ""
    return text if len(text) <= LONGEST and text.isprintable() else ""
