"""`GET /_tollway/usage/events/{request_id}`: what one request used, told to its owner alone."""

from gateway.ledger.ledger import Ledger
from tests.support.consoles import console_over
from tests.support.ledgers import NOON_MS, an_event


async def test_tells_what_a_request_of_ones_own_used(ledger: Ledger) -> None:
    """B3: an app that shows tokens per message gets every count of the settled event, unchanged."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme")
        await ledger.take_events([an_event("r1", admitted_ms=NOON_MS, settled_ms=NOON_MS + 1_234)])

        reply = await bench.get("/usage/events/r1", key)

    assert reply.status_code == 200
    assert reply.json() == {
        "request_id": "r1",
        "account": "acme",
        "admitted_at": "2026-11-21T12:00:00.000Z",
        "settled_at": "2026-11-21T12:00:01.234Z",
        "key_id": "abcdefghijkl",
        "tier": "free",
        "route": "/v1/*",
        "endpoint": "/v1/chat/completions",
        "model": "gpt-tiny",
        "upstream": "openai",
        "status": 200,
        "outcome": "ok",
        "counted_by": "upstream",
        "streamed": True,
        "requests": 1,
        "input_tokens": 10,
        "output_tokens": 20,
        "cached_tokens": 3,
        "reasoning_tokens": 4,
        "estimated_tokens": 500,
        "request_bytes": 100,
        "response_bytes": 2000,
        "conversation_id": "",
        "message_id": "",
        "tokens": 30,
    }


async def test_anothers_request_looks_like_one_that_never_was(ledger: Ledger) -> None:
    """C3: nobody learns from an answer that someone else's request id exists."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme")
        await ledger.take_events([an_event("theirs", account_id="other")])

        theirs = await bench.get("/usage/events/theirs", key)
        nobodys = await bench.get("/usage/events/nobodys", key)

    for reply in (theirs, nobodys):
        error = reply.json()["error"]
        assert error.pop("request_id") == reply.headers["x-request-id"]
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.json()["error"]["message"] == nobodys.json()["error"]["message"]
    assert theirs.headers.keys() == nobodys.headers.keys()


async def test_a_request_not_yet_flushed_is_to_be_asked_for_again(ledger: Ledger) -> None:
    """B3: usage reaches the ledger moments after the answer; a client is told when to ask, and then finds it."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme")
        early = await bench.get("/usage/events/r1", key)
        await ledger.take_events([an_event("r1")])
        later = await bench.get("/usage/events/r1", key)

    assert (early.status_code, early.headers["retry-after"]) == (404, "1")
    assert later.status_code == 200


async def test_a_key_that_was_revoked_reads_nothing_more(ledger: Ledger) -> None:
    """C3, F4: a leaked key that was revoked must not go on to tell what its account does."""
    async with console_over(ledger) as bench:
        key = await bench.account("acme")
        await ledger.take_events([an_event("r1")])
        assert (await bench.get("/usage/events/r1", key)).status_code == 200
        await ledger.revoke_key(key.split("_")[1], NOON_MS)
        version = (await ledger.account("acme")).version
        mark = await bench.limiter.flushed_mark("acme", 1.0)
        await bench.limiter.hydrate("acme", version, (), NOON_MS, mark)

        reply = await bench.get("/usage/events/r1", key)

    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "revoked_api_key")
