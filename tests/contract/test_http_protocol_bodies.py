"""Bodies through the HTTP server: asked for, unwanted, broken, and larger than memory should hold."""

import asyncio

import pytest

from gateway.edge.exchange import Receive, Scope, Send
from tests.support.http_server import (
    OK,
    STREAM,
    App,
    HurriedProtocol,
    calling,
    echo,
    get,
    post,
    served,
)


@pytest.mark.parametrize("wire", [b"nonsense\r\n\r\n", b"5\r\nab"], ids=["at once", "in the body"])
async def test_a_body_that_breaks_is_told_to_the_caller_and_the_application(wire: bytes) -> None:
    """The application stops reading, and the caller learns why, not only that."""
    left = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "http.request":
            pass
        left.set()

    async with served(app, protocol=HurriedProtocol) as server, calling(server) as caller:
        await caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await caller.say(wire)
        status = (await caller.answer()).status
        await left.wait()

        assert status == (400 if wire.startswith(b"n") else 408)


async def test_the_body_is_asked_for_when_the_application_wants_it() -> None:
    """RFC 9110 §10.1.1: a client that waits to be asked is asked, once."""
    wire = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    async with served(echo) as server, calling(server) as caller:
        for _ in range(2):
            await caller.say(wire)
            assert (await caller.answer()).status == 100
            await caller.say(b"abc")
            assert (await caller.answer()).seen["body"] == 3
        await caller.say(wire + b"abc")
        assert (await caller.answer()).status == 200


def refusing(status: int = 413) -> App:
    """An application that answers without reading the body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**OK, "status": status})
        await send({"type": "http.response.body", "body": b"no"})

    return app


async def test_a_client_that_waits_to_be_asked_may_be_refused_first() -> None:
    """It then never sends its body: the connection ends, as nobody could tell what comes next on it."""
    wire = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    async with served(refusing()) as server, calling(server) as caller:
        await caller.say(wire)
        got = await caller.answer()

        assert (got.status, got.fields[b"connection"], await caller.rest()) == (413, b"close", b"")


async def test_a_short_body_that_nobody_wants_keeps_the_connection() -> None:
    """A 401 to a small upload must not cost the client a new connection."""
    async with served(refusing(401)) as server, calling(server) as caller:
        for _ in range(3):
            await caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")
            got = await caller.answer()
            assert (got.status, got.fields.get(b"connection")) == (401, None)
            await caller.say(b"x" * 300_000)
        await caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await caller.answer()
        await caller.say(b"3\r\nabc\r\n0\r\n\r\n" + get())
        assert (await caller.answer()).status == 401


@pytest.mark.parametrize("announced", [True, False])
async def test_a_long_body_that_nobody_wants_costs_the_connection_but_not_the_answer(*, announced: bool) -> None:
    """F1: a client in the middle of its upload reads its 413 after it, not a reset in its place."""
    body = b"x" * 30_000_000
    framing = b"Content-Length: 30000000\r\n\r\n" + body
    if not announced:
        framing = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with served(refusing()) as server, calling(server) as caller, asyncio.timeout(30):
        await caller.say(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing)
        got = await caller.answer()

        assert (got.status, got.body) == (413, b"no")
        assert (got.fields.get(b"connection") == b"close") == announced
        assert await caller.rest() == b""


async def test_an_upload_is_held_back_while_nobody_reads_it() -> None:
    """F1: "large uploads without buffering": memory holds a socket read or two, not the file."""
    goes_on, sizes = asyncio.Event(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await goes_on.wait()
        more = True
        while more:
            message = await receive()
            sizes.append(len(message["body"]))
            more = message["more_body"]
        await send(OK)
        await send({"type": "http.response.body", "body": b"ok"})

    async with served(app) as server, calling(server) as caller:
        wire = post(b"x" * 20_000_000)
        writing = asyncio.ensure_future(caller.say(wire))
        await asyncio.sleep(0.3)
        assert not writing.done()
        goes_on.set()

        assert (await caller.answer()).status == 200
        assert sum(sizes) == 20_000_000
        assert max(sizes) <= 65_536 + 262_144


async def test_an_answer_is_held_back_while_nobody_takes_it() -> None:
    """F1: a slow reader of a fast upstream must not fill the gateway's memory, and gets it all."""
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(STREAM)
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 20_000, "more_body": True})
            sent += 20_000
        await send({"type": "http.response.body", "body": b""})

    async with served(app) as server, calling(server) as caller:
        await caller.say(get())
        await asyncio.sleep(0.3)
        assert sent < 15_000_000

        assert len((await caller.answer()).body) == 20_000_000
