"""Whose turn it is on a connection to the HTTP server, and how a client that left is told from one that listens."""

import asyncio
import socket

import pytest

from gateway.edge.exchange import Receive, Scope, Send
from gateway.edge.http_limits import MAX_QUEUED
from tests.support.http_server import (
    UPLOAD,
    Gate,
    calling,
    echo,
    get,
    gone,
    post,
    served,
)


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    """F1, RFC 9112 §9.3.2: one at a time, however they come."""
    wire = b"".join(post(b"x" * (number * 40_000), b"/%d" % number) + get(b"/then") for number in range(5))
    async with served(echo) as server, calling(server) as caller:
        writing = asyncio.ensure_future(caller.say(wire))
        seen = [(await caller.answer()).seen for _ in range(10)]
        await writing

    assert [(one["path"], one["body"]) for one in seen[::2]] == [(f"/{n}", n * 40_000) for n in range(5)]


async def test_a_pipeline_is_bounded() -> None:
    """A caller that sends thousands of requests at once gets answers to as many as may wait, and the last one says so:
    whatever else it sent, it has to send again (RFC 9112 §9.3.2).
    """  # noqa: D205
    async with served(echo) as server, calling(server) as caller:
        await caller.say(get() * 500)
        answers = [await caller.answer() for _ in range(MAX_QUEUED + 1)]

        assert [got.fields.get(b"connection") for got in answers] == [None] * MAX_QUEUED + [b"close"]
        assert await caller.rest() == b""


async def test_what_is_no_http_is_told_after_the_answers_before_it() -> None:
    """A refusal must not overtake the answer to an earlier, good request."""
    app = Gate()
    async with served(app) as server, calling(server) as caller:
        await caller.say(get() + get() + b"nonsense\r\n\r\n")
        await app.reached.wait()
        app.opened.set()

        assert [(await caller.answer()).status for _ in range(3)] == [200, 200, 400]
        assert await caller.rest() == b""


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_half_closed_client_gets_its_answer(version: bytes) -> None:
    """Scripts with `nc` and some old clients shut their sending side down after the request."""
    app = Gate()
    async with served(app) as server, calling(server) as caller:
        await caller.say(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version)
        caller.writer.write_eof()
        await app.reached.wait()
        await asyncio.sleep(0.5)  # longer than two sweeps: what must not happen would have happened
        app.opened.set()
        got = await caller.answer()
        if got.status == 100:
            got = await caller.answer()

        assert (got.status, got.body, app.left.is_set()) == (200, b"ok", False)
        assert await caller.rest() == b""


async def test_a_half_closed_client_gets_its_stream() -> None:
    """The same for an answer that was under way: what asks whether the client is there leaves no trace in the body."""
    app = Gate(stream=True)
    async with served(app) as server, calling(server) as caller:
        await caller.say(get())
        await app.reached.wait()
        caller.writer.write_eof()
        await asyncio.sleep(0.5)
        app.opened.set()

        assert (await caller.answer()).body == b"firstok"
        assert await caller.rest() == b""


@pytest.mark.parametrize("stream", [False, True], ids=["before the answer", "in the answer"])
async def test_a_client_that_left_is_noticed(*, stream: bool) -> None:
    """What an upstream generates for nobody is paid for by somebody: the gateway must learn of it soon."""
    app = Gate(stream=stream)
    async with served(app) as server:
        async with calling(server) as caller:
            await caller.say(get())
            await app.reached.wait()
            if stream:
                await caller.reader.readuntil(b"first\r\n")
        async with asyncio.timeout(20):
            await app.left.wait()
        await gone(server)


async def test_a_client_that_left_during_its_upload_is_noticed() -> None:
    """Half a request is none."""
    left = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "http.request":
            pass
        left.set()

    async with served(app) as server, calling(server) as caller:
        await caller.say(UPLOAD + b"four")
        caller.writer.write_eof()
        async with asyncio.timeout(20):
            await left.wait()
        assert await caller.rest() == b""


async def test_a_reset_is_a_client_that_left() -> None:
    """RST, as from a killed process with unread bytes."""
    app = Gate()
    async with served(app) as server, calling(server) as caller:
        await caller.say(get())
        await app.reached.wait()
        raw: socket.socket = caller.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        caller.writer.transport.abort()
        async with asyncio.timeout(20):
            await app.left.wait()
