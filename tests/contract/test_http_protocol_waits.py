"""How long the HTTP server waits for a client, how many it takes, and how it stops."""

import asyncio
import ssl

import pytest
import trustme

from gateway.edge.exchange import Receive, Scope, Send
from tests.support.http_server import (
    STREAM,
    UPLOAD,
    Gate,
    HurriedProtocol,
    calling,
    echo,
    get,
    gone,
    post,
    served,
)


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"", None),
        (b"GET / HTTP/1.1\r\n", 408),
        (UPLOAD + b"four", 408),
        (post(b"abc") + b"\r\n", None),
        (post(b"abc") + b"GET", 408),
    ],
    ids=["silent", "in the head", "in the body", "idle", "in the next head"],
)
async def test_a_client_that_says_nothing_more_is_left(wire: bytes, status: int | None) -> None:
    """F1, slowloris: a connection costs a client nothing, so it must not cost the gateway one for ever."""
    async with served(echo, protocol=HurriedProtocol, timeout_keep_alive=0.2) as server, calling(server) as caller:
        await caller.say(wire)
        if b"abc" in wire:
            assert (await caller.answer()).status == 200
        async with asyncio.timeout(20):
            if status is not None:
                got = await caller.answer()
                assert (got.status, got.error["code"], got.fields[b"connection"]) == (
                    status,
                    "request_timeout",
                    b"close",
                )
            assert await caller.rest() == b""
        await gone(server)


async def test_a_client_that_stops_in_a_later_head_is_told() -> None:
    """The same for the second request of a connection."""
    async with served(echo, protocol=HurriedProtocol) as server, calling(server) as caller:
        await caller.say(get())
        assert (await caller.answer()).status == 200
        await caller.say(b"GET")
        async with asyncio.timeout(20):
            assert (await caller.answer()).status == 408


async def test_a_head_that_drips_is_no_head() -> None:
    """Slowloris proper: a byte now and then must not buy time."""
    async with served(echo, protocol=HurriedProtocol) as server, calling(server) as caller:

        async def drip() -> None:
            while True:
                caller.writer.write(b"x-a: b\r\n")
                await asyncio.sleep(0.02)

        await caller.say(b"GET / HTTP/1.1\r\n")
        dripping = asyncio.ensure_future(drip())
        async with asyncio.timeout(20):
            assert (await caller.answer()).status == 408
        dripping.cancel()


async def test_who_takes_nothing_of_the_answer_is_left() -> None:
    """A reader that stopped would hold an upstream's stream open for ever."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(STREAM)
        while server.state.connections:
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})

    async with served(app, protocol=HurriedProtocol) as server, calling(server) as caller:
        await caller.say(get())
        await gone(server)


async def test_a_slow_application_is_waited_for() -> None:
    """Only the client's silence counts: an upstream may think for minutes."""
    app = Gate()
    async with served(app, protocol=HurriedProtocol, timeout_keep_alive=0.1) as server, calling(server) as caller:
        await caller.say(get())
        await asyncio.sleep(0.8)
        app.opened.set()

        assert (await caller.answer()).body == b"ok"


async def test_connections_beyond_the_limit_are_told() -> None:
    """Those within it are served on; the others know that it is not their fault, and when to come back."""
    async with served(echo, limit_concurrency=2) as server, calling(server) as first, calling(server) as second:
        for caller in (first, second):
            await caller.say(get())
            assert (await caller.answer()).status == 200
        async with calling(server) as third:
            await third.say(get())
            got = await third.answer()
            assert (got.status, got.error["code"]) == (503, "too_many_connections")
            assert (got.fields[b"connection"], got.fields[b"retry-after"]) == (b"close", b"1")
            assert await third.rest() == b""
        await first.say(get())
        assert (await first.answer()).status == 200


async def test_a_stop_lets_answers_end() -> None:
    """A deploy costs no answer: what runs is finished and says that it is the last, what is idle is closed."""
    app = Gate()
    async with served(app) as server, calling(server) as idle, calling(server) as busy:
        await busy.say(get())
        await app.reached.wait()
        stopping = asyncio.ensure_future(server.server.shutdown())
        assert await idle.rest() == b""
        app.opened.set()
        got = await busy.answer()

        assert (got.body, got.fields[b"connection"], await busy.rest()) == (b"ok", b"close", b"")
        await stopping


async def test_over_tls() -> None:
    """The scheme is told, answers come, and a client that leaves is noticed."""
    authority = trustme.CA()
    theirs, ours = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(theirs)
    authority.issue_cert("localhost").configure_cert(ours)
    app = Gate()

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        await (app if scope["path"] == "/gate" else echo)(scope, receive, send)

    async with served(either, tls=ours) as server:
        async with calling(server, tls=theirs) as caller:
            await caller.say(get() + post(b"x" * 200_000))
            assert (await caller.answer()).seen["scheme"] == "https"
            assert (await caller.answer()).seen["body"] == 200_000
            await caller.say(get(b"/gate"))
            await app.reached.wait()
        async with asyncio.timeout(20):
            await app.left.wait()
        async with calling(server, tls=theirs) as caller:
            await caller.say(b"nonsense\r\n\r\n")
            assert (await caller.answer()).status == 400
