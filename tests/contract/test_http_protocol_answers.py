"""How the HTTP server frames answers, and what becomes of an application that fails. Over real sockets."""

from collections.abc import Sequence
from typing import Any

import pytest
import structlog

from gateway.edge.exchange import Receive, Scope, Send
from tests.support.http_server import App, Caller, calling, get, post, served

START = "http.response.start"
BODY = "http.response.body"
GET_1_0 = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"


def saying(status: int, headers: Sequence[tuple[bytes, bytes]], *pieces: bytes, end: bool = True) -> App:
    """An application that sends one answer, its body piece by piece."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": START, "status": status, "headers": headers})
        for piece in pieces[: -1 if end and pieces else None]:
            await send({"type": BODY, "body": piece, "more_body": True})
        if end:
            await send({"type": BODY, "body": pieces[-1] if pieces else b""})

    return app


def length(number: int) -> tuple[bytes, bytes]:
    """The header field."""
    return b"content-length", b"%d" % number


@pytest.mark.parametrize(
    ("wire", "status", "headers", "pieces", "expected"),
    [
        (get(), 200, [length(5)], [b"hello"], b"200 OK\r\ncontent-length: 5\r\n\r\nhello"),
        (get(), 200, [length(5)], [b"he", b"", b"llo"], b"200 OK\r\ncontent-length: 5\r\n\r\nhello"),
        (get(), 200, [], [b"hello"], b"200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        (get(), 200, [], [b"he", b"", b"llo", b""], b"200 OK\r\n{}2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        (get(), 200, [(b"transfer-encoding", b"chunked")], [b"a"], b"200 OK\r\n{}1\r\na\r\n0\r\n\r\n"),
        (get(), 200, [length(0)], [b""], b"200 OK\r\ncontent-length: 0\r\n\r\n"),
        (get(), 204, [length(0)], [b""], b"204 No Content\r\n\r\n"),
        (get(), 204, [], [b"dropped"], b"204 No Content\r\n\r\n"),
        (get(), 304, [length(5)], [b""], b"304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
        (get(), 599, [length(0)], [b""], b"599 \r\ncontent-length: 0\r\n\r\n"),
        (HEAD, 200, [length(5)], [b"hello"], b"200 OK\r\ncontent-length: 5\r\n\r\n"),
        (HEAD, 200, [], [b"hello"], b"200 OK\r\n\r\n"),
        (GET_1_0, 200, [length(1)], [b"a"], b"200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\na"),
    ],
)
async def test_an_answer_has_one_framing(
    wire: bytes, status: int, headers: list[tuple[bytes, bytes]], pieces: list[bytes], expected: bytes
) -> None:
    """F1: to the byte, and the connection goes on: what follows an answer is the next answer."""
    expected = b"HTTP/1.1 " + expected.replace(b"{}", b"transfer-encoding: chunked\r\n\r\n")
    async with served(saying(status, headers, *pieces)) as server, calling(server) as caller:
        await caller.say(wire + wire)

        assert await caller.reader.readexactly(2 * len(expected)) == 2 * expected


@pytest.mark.parametrize(
    ("wire", "headers", "expected"),
    [
        (get(b"/", b"Connection: close"), [length(1)], b"content-length: 1\r\nconnection: close\r\n\r\na"),
        (get(b"/", b"Connection: x, Close"), [length(1)], b"content-length: 1\r\nconnection: close\r\n\r\na"),
        (get(), [length(1), (b"connection", b"close")], b"content-length: 1\r\nconnection: close\r\n\r\na"),
        (b"GET / HTTP/1.0\r\n\r\n", [length(1)], b"content-length: 1\r\nconnection: close\r\n\r\na"),
        (GET_1_0, [], b"connection: close\r\n\r\na"),
    ],
)
async def test_a_connection_that_ends_says_so(wire: bytes, headers: list[tuple[bytes, bytes]], expected: bytes) -> None:
    """A client that would send its next request into a closing connection loses it; what it sent is not answered."""
    async with served(saying(200, headers, b"a")) as server, calling(server) as caller:
        await caller.say(wire + get(b"/ignored"))

        assert await caller.rest() == b"HTTP/1.1 200 OK\r\n" + expected


async def test_a_large_body_arrives_whole() -> None:
    """Beyond what is copied behind the head, and beyond what the socket takes at once."""
    body = bytes(range(256)) * 20_000
    async with served(saying(200, [length(len(body))], body)) as server, calling(server) as caller:
        await caller.say(get() + get())

        assert (await caller.answer()).body == body
        assert (await caller.answer()).body == body


async def test_what_uvicorn_adds_to_every_answer_is_added() -> None:
    """The `Date` and headers of uvicorn's own settings keep their meaning."""
    async with served(saying(200, [length(1)], b"a"), headers=[("x-a", "b")]) as server, calling(server) as caller:
        await server.server.on_tick(0)
        await caller.say(get())

        assert (await caller.answer()).fields == {b"x-a": b"b", b"content-length": b"1"}


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that has a bug."""
    raise ValueError("secret")


async def returns_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that forgot its answer."""


UNSENDABLE: dict[str, App] = {
    "raises": raises,
    "returns nothing": returns_nothing,
    "starts and stops": saying(200, [length(5)], end=False),
    "CR LF in a value": saying(200, [(b"x", b"a\r\nset-cookie: b"), length(0)]),
    "LF in a value": saying(200, [(b"x", b"a\nb"), length(0)]),
    "CR in a value": saying(200, [(b"x", b"a\rb"), length(0)]),
    "NUL in a value": saying(200, [(b"x", b"a\0b"), length(0)]),
    "LF in a name": saying(200, [(b"x\nset-cookie", b"b")]),
    "a length that is no number": saying(200, [(b"content-length", b"-1")]),
    "two lengths": saying(200, [length(1), length(1)], b"a"),
    "names in upper case": saying(200, [(b"Content-Length", b"1")], b"a"),
    "an interim status": saying(101, [length(0)]),
    "shorter than it says": saying(200, [length(5)], b"a"),
    "longer than it says": saying(200, [length(1)], b"hello"),
}


@pytest.mark.parametrize("app", UNSENDABLE.values(), ids=UNSENDABLE.keys())
async def test_an_answer_that_can_t_be_sent_is_a_500(app: App) -> None:
    """Nothing of a broken answer leaves (CWE-113: nor what a field smuggles); the caller learns that it was not its
    fault and nothing else, the operator learns the rest from one log line.
    """  # noqa: D205
    with structlog.testing.capture_logs() as lines:
        async with served(app) as server, calling(server) as caller:
            await caller.say(get())
            got = await caller.answer()

            assert (got.status, got.fields[b"connection"], got.error["code"]) == (500, b"close", "internal_error")
            assert b"secret" not in got.body
            assert b"set-cookie" not in got.fields
            assert await caller.rest() == b""
    assert [line["event"] for line in lines] in (["app_failed"], ["app_left_its_answer_open"])


async def test_a_head_request_that_fails_has_no_body() -> None:
    """Bytes after a HEAD's answer would be taken for the next one."""
    async with served(raises) as server, calling(server) as caller:
        await caller.say(HEAD)
        got = await caller.answer(head_only=True)

        assert (got.status, await caller.rest()) == (500, b"")


async def endlessly(caller: Caller) -> None:
    """Read answers until one is none."""
    while True:
        await caller.answer()


CUT: dict[str, App] = {
    "stops in a chunked body": saying(200, [], b"hello", end=False),
    "stops in a body of a length": saying(200, [length(9)], b"hello", end=False),
    "ends a body too early": saying(200, [length(9)], b"hel", b"lo"),
    "goes on after the length": saying(200, [length(5)], b"hello", b"more"),
}


@pytest.mark.parametrize("app", CUT.values(), ids=CUT.keys())
async def test_an_answer_that_broke_off_is_cut(app: App) -> None:
    """Half an answer must never pass for a whole one: a caller would act on it."""
    with structlog.testing.capture_logs() as lines:
        async with served(app) as server, calling(server) as caller:
            await caller.say(get())
            with pytest.raises((EOFError, OSError)):
                await endlessly(caller)
    assert len(lines) == 1


@pytest.mark.parametrize("kind", ["http.response.body", "http.response.trailers", "websocket.accept"])
async def test_a_message_out_of_turn_is_an_error_of_the_application(kind: str) -> None:
    """A bug in the gateway shows in a test, not as a broken answer."""
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message: dict[str, Any] = {"type": kind, "status": 200, "body": b""}
        with pytest.raises(RuntimeError) as error:
            await send(message)
        told.append(str(error.value))
        await saying(200, [length(0)])(scope, receive, send)
        with pytest.raises(RuntimeError):
            await send({"type": BODY, "body": b"more"})

    async with served(app) as server, calling(server) as caller:
        await caller.say(get())

        assert (await caller.answer()).status == 200
        assert kind in told[0]


async def test_requests_are_counted_and_tasks_forgotten() -> None:
    """The graceful stop waits for tasks, and its `limit_max_requests` counts: neither may drift."""
    async with served(saying(200, [length(0)])) as server:
        async with calling(server) as caller:
            for _ in range(3):
                await caller.say(post(b"a"))
                await caller.answer()
            assert len(server.state.connections) == 1

        assert server.state.total_requests == 3
        assert server.state.tasks == set()
