"""Conversation and message ids that apps send along, in the usage rows (row E6)."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.edge.app_ids import LONGEST
from gateway.ledger.ledger import Ledger
from gateway.metering.flusher import event_of
from tests.support.ledgers import an_event
from tests.support.odd_peer import always, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.stand import CHAT, SETTINGS, stand
from tests.support.valkey import ValkeyServer

PLACES = "metering: {{ app_ids: {{ conversation_header: x-chat, message_header: x-msg, metadata: true }}, "
NAMED = SETTINGS.replace("metering: {{ ", PLACES)
IN_BODY = {"conversation_id": "c-body", "message_id": "m-body"}


@pytest.mark.parametrize(
    ("headers", "metadata", "noted"),
    [
        ({"X-Chat": "c-1", "x-msg": "m-1"}, {}, ("c-1", "m-1")),
        ({"x-chat": "c-1"}, IN_BODY, ("c-1", "m-body")),
        ({}, IN_BODY, ("c-body", "m-body")),
        ({"x-chat": "c" * LONGEST, "x-msg": "m" * (LONGEST + 1)}, {}, ("c" * LONGEST, "")),
        ({}, {"conversation_id": 5, "message_id": "a\nb"}, ("", "")),
        ({}, "no object", ("", "")),
        ({}, None, ("", "")),
    ],
)
async def test_an_event_says_which_conversation_it_belongs_to(
    tmp_path: Path, valkey: ValkeyServer, headers: dict[str, str], metadata: Any, noted: tuple[str, str]
) -> None:
    """E6: whoever bills by conversation finds its id in the row and in the API, whole or not at all; whatever an app
    sends there, its request is served, and goes up as it came.
    """  # noqa: D205
    async with (
        odd_peer(always(http(completion()))) as peer,
        stand(tmp_path, valkey, peer.port, settings=NAMED) as here,
    ):
        bearer = {"authorization": f"Bearer {await here.account()}"}
        body = {"model": "m", "messages": [], "metadata": metadata}
        answer = await here.client.post(CHAT, json=body, headers=bearer | headers)
        event = await here.event(answer.headers["x-request-id"])
        told = await here.client.get(f"/_tollway/usage/events/{event.request_id}", headers=bearer)

    assert answer.status_code == 200
    assert (event.conversation_id, event.message_id) == noted
    assert (told.json()["conversation_id"], told.json()["message_id"]) == noted


async def test_nothing_is_noted_unasked(tmp_path: Path, valkey: ValkeyServer) -> None:
    """What the operator did not ask for is not written down."""
    async with odd_peer(always(http(completion()))) as peer, stand(tmp_path, valkey, peer.port) as here:
        headers = {"authorization": f"Bearer {await here.account()}", "x-chat": "c", "x-conversation-id": "c"}
        answer = await here.client.post(CHAT, json={"model": "m", "messages": [], "metadata": IN_BODY}, headers=headers)
        event = await here.event(answer.headers["x-request-id"])
        assert here.gateway._proxy.snapshot.app_ids is None

    assert (event.conversation_id, event.message_id) == ("", "")


def test_an_older_gateways_event_has_none() -> None:
    """A7: while two versions share a stream, events that lack the fields count as before."""
    older = list(msgspec.structs.astuple(an_event("r1", conversation_id="c", message_id="m")))[:-2]

    assert event_of(msgspec.msgpack.encode(older)) == an_event("r1")


async def test_every_database_keeps_them(ledger: Ledger) -> None:
    """E6: SQLite and PostgreSQL give back what was said, and nothing where nothing was."""
    await ledger.take_events([an_event("told", conversation_id="c", message_id="m"), an_event("untold")])
    told, untold = await ledger.event("told"), await ledger.event("untold")

    assert told is not None
    assert untold is not None
    assert (told.conversation_id, told.message_id) == ("c", "m")
    assert (untold.conversation_id, untold.message_id) == ("", "")
