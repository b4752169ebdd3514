"""What the HTTP server takes for a request, and what it answers to everything else. Over real sockets."""

from collections.abc import AsyncIterator

import pytest

from tests.support.http_server import HOST, Served, calling, echo, get, post, served

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"

BAD = {
    "not HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2 by prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown method": b"FOO / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method of RTSP": b"DESCRIBE / RTSP/1.0\r\n\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "a Host that is no host": b"GET / HTTP/1.1\r\nHost: a/b@c\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare CR in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "DEL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7f\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "no field name": b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "a field name that is no token": b"GET / HTTP/1.1\r\nHost: a\r\nX\x80: b\r\n\r\n",
    "a space after the version": b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n",
    "a target with a byte above ASCII": b"GET /\x80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a fragment": get(b"/a#b"),
    "a target without a slash": get(b"a"),
    "an asterisk without OPTIONS": get(b"*"),
    "an absolute target of another scheme": get(b"ftp://a/b"),
    "an absolute target without a host": get(b"http:///b"),
    "an absolute target with a user": get(b"http://u:p@a/b"),
    "length and coding": CHUNKED + b"Content-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "coding and length": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two lengths in one": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a length with a sign": POST + b"Content-Length: +3\r\n\r\nabc",
    "an empty length": POST + b"Content-Length:\r\n\r\n",
    "a length beyond 64 bits": POST + b"Content-Length: 18446744073709551617\r\n\r\n",
    "another coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "another last coding": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    "chunked twice": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk of no size": CHUNKED + b"\r\nz\r\n",
    "a chunk of a negative size": CHUNKED + b"\r\n-1\r\n",
    "a chunk whose size has a space": CHUNKED + b"\r\n3 \r\nabc\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"\r\n2\r\nabc\r\n0\r\n\r\n",
    "a chunk ended by LF": CHUNKED + b"\r\n3\nabc\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": CHUNKED + b"\r\n11111111111111111\r\n",
}


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    """A server that echoes."""
    async with served(echo) as here:
        yield here


@pytest.mark.parametrize("wire", BAD.values(), ids=BAD.keys())
async def test_what_is_no_request_is_told_so_and_the_connection_closes(server: Served, wire: bytes) -> None:
    """F1: two servers that read one request differently let one caller into another's; here there is no second
    reading. The caller's developer reads what was wrong.
    """  # noqa: D205
    async with calling(server) as caller:
        await caller.say(wire)
        got = await caller.answer()

        assert (got.status, got.fields[b"content-type"], got.fields[b"connection"]) == (
            400,
            b"application/json",
            b"close",
        )
        assert got.error["code"] == "bad_request"
        assert got.error["type"] == "invalid_request_error"
        assert got.error["param"] is None
        assert got.error["message"].startswith("The request is not valid HTTP: ")
        assert len(got.fields[b"x-request-id"]) > 10
        assert await caller.rest() == b""


@pytest.mark.parametrize(
    ("wire", "status", "code"),
    [
        (get(b"/" + b"a" * 16_384), 414, "target_too_long"),
        (b"GET /" + b"a" * 70_000, 414, "target_too_long"),
        (get(b"/", b"x: " + b"a" * 65_536), 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000, 431, "head_too_large"),
        (get(b"/", *[b"x: %d" % number for number in range(256)]), 431, "head_too_large"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "version_not_supported"),
        (b"GET /\r\n\r\n", 505, "version_not_supported"),
    ],
    ids=["target", "endless target", "head", "endless head", "fields", "2.0", "0.9"],
)
async def test_a_head_is_bounded(server: Served, wire: bytes, status: int, code: str) -> None:
    """F1: one caller's head must not fill the memory that serves all others; it is told which bound it met."""
    async with calling(server) as caller:
        await caller.say(wire)
        got = await caller.answer()

        assert (got.status, got.error["code"], got.fields[b"connection"]) == (status, code, b"close")
        assert await caller.rest() == b""


@pytest.mark.parametrize(
    "wire",
    [
        get(b"/" + b"a" * 16_383),
        get(b"/", b"x: " + b"a" * 65_000),
        get(b"/", *[b"x: %d" % number for number in range(255)]),
    ],
    ids=["target", "head", "fields"],
)
async def test_a_head_at_its_bound_is_served(server: Served, wire: bytes) -> None:
    """Bounds that refuse earlier than they say break callers whose heads were counted."""
    async with calling(server) as caller:
        await caller.say(wire)

        assert (await caller.answer()).status == 200


async def test_a_scope_has_what_asgi_asks_for(server: Served) -> None:
    """The gateway and the console read nothing but the scope."""
    async with calling(server) as caller:
        await caller.say(post(b"abc", b"/a%20b/%C3%A9?x=%20&y", b"X-A:  b c \t", b"x-A: d"))
        seen = (await caller.answer()).seen

        assert (seen["method"], seen["http_version"], seen["scheme"]) == ("POST", "1.1", "http")
        assert (seen["path"], seen["raw_path"], seen["query"]) == ("/a b/é", "/a%20b/%C3%A9", "x=%20&y")
        assert seen["headers"] == [["host", "a"], ["content-length", "3"], ["x-a", "b c"], ["x-a", "d"]]
        assert (seen["body"], seen["server"], seen["state"]) == (3, ["127.0.0.1", server.port], {})
        assert seen["client"] == list(caller.writer.get_extra_info("sockname"))


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        (b"http://b:81/c?d", "/c", "d", "b:81"),
        (b"http://b", "/", "", "b"),
        (b"https://b?d/e?f", "/", "d/e?f", "b"),
        (b"//b/c", "//b/c", "", "a"),
    ],
)
async def test_an_absolute_target_brings_its_own_host(
    server: Served, target: bytes, path: str, query: str, host: str
) -> None:
    """RFC 9112 §3.2.2: a server must take it, and must not believe `Host` beside it."""
    async with calling(server) as caller:
        await caller.say(get(target))
        seen = (await caller.answer()).seen

        assert (seen["path"], seen["query"]) == (path, query)
        assert [value for name, value in seen["headers"] if name == "host"] == [host]


async def test_options_of_the_whole_server(server: Served) -> None:
    """The asterisk reaches the application, which says that it has no such route."""
    async with calling(server) as caller:
        await caller.say(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")

        assert (await caller.answer()).seen["path"] == "*"


@pytest.mark.parametrize("cut", [1, 7, 10_000])
async def test_a_chunked_body_is_put_together(server: Served, cut: int) -> None:
    """Extensions and trailers are thrown away: no field of a trailer may pass for one of the head."""
    wire = CHUNKED + b"\r\n3;a=b\r\nabc\r\n00A\r\n0123456789\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
    async with calling(server) as caller:
        await caller.say(*(wire[at : at + cut] for at in range(0, len(wire), cut)))
        seen = (await caller.answer()).seen
        await caller.say(get(b"/next"))
        after = (await caller.answer()).seen

        assert (seen["body"], [name for name, _ in seen["headers"]]) == (13, ["host", "transfer-encoding"])
        assert (after["path"], after["headers"]) == ("/next", [["host", "a"]])


@pytest.mark.parametrize("wire", [b"0\r\nx: " + b"a" * 200_000, b"1;" + b"a" * 200_000], ids=["trailer", "extension"])
async def test_what_brings_no_body_is_bounded(server: Served, wire: bytes) -> None:
    """F1: a trailer or a chunk extension without end is memory and time for nothing."""
    async with calling(server) as caller:
        await caller.say(CHUNKED + b"\r\n", *(wire[at : at + 50_000] for at in range(0, len(wire), 50_000)))

        assert (await caller.answer()).status == 400


@pytest.mark.parametrize("body", [b"", b"abc"])
async def test_a_wish_to_upgrade_is_ignored(server: Served, body: bytes) -> None:
    """`curl --http2` asks for h2c in every request (RFC 9110 §7.8): it is answered in HTTP/1.1, with its body read,
    and the connection goes on.
    """  # noqa: D205
    upgrade = [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ"]
    wire = post(body, b"/1", *upgrade) if body else get(b"/1", *upgrade)
    async with calling(server) as caller:
        await caller.say(wire + wire + get(b"/2"))
        first, second, third = [(await caller.answer()).seen for _ in range(3)]

        assert (first["path"], first["body"]) == (second["path"], second["body"]) == ("/1", len(body))
        assert ["connection", "HTTP2-Settings"] in [[name, value.strip()] for name, value in first["headers"]]
        assert "upgrade" not in dict(first["headers"])
        assert third["path"] == "/2"


async def test_blank_lines_before_a_request_are_passed_over(server: Served) -> None:
    """RFC 9112 §2.2: old clients send CRLF after a body."""
    async with calling(server) as caller:
        await caller.say(b"\r\n\r\n" + post(b"abc") + b"\r\n" + get(b"/2"))

        assert (await caller.answer()).seen["body"] == 3
        assert (await caller.answer()).seen["path"] == "/2"
