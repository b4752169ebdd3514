"""The transport port, on both implementations: what goes over the wire, and what comes back."""

from collections.abc import AsyncIterator

import pytest

from gateway.domain.faults import CLIENT_GONE, INVALID_HEADER, Fault
from tests.support.odd_peer import Received, Visit, always, answers, odd_peer
from tests.support.transports import KINDS, Kind, body_of, get, transport_to
from tests.support.until import until

pytestmark = pytest.mark.parametrize("kind", KINDS)

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    """A body that streams."""
    for piece in pieces:
        yield piece


async def test_the_request_goes_out_as_it_was_given_and_nothing_is_invented(kind: Kind) -> None:
    """F1: method, path, query, fields and body arrive byte for byte; an added user-agent or accept-encoding would
    change what the upstream answers.
    """  # noqa: D205
    async with (
        odd_peer(recording := Recording()) as peer,
        transport_to(kind, peer.port, base_path="/base/") as transport,
    ):
        target = b"/v1/a%2Fb/..;x?q=%20&q=%C3%A9"
        fields = [(b"authorization", b"Bearer k"), (b"x-many", b"1"), (b"x-many", b"2"), (b"x-empty", b"")]

        await (await transport.send(b"POST", target, fields, b'{"a": 1}')).read_all(10)

    [request] = recording.requests
    assert request.line == b"POST /base" + target + b" HTTP/1.1"
    host = (b"host", b"127.0.0.1:%d" % peer.port)
    assert [(name.lower(), value) for name, value in request.fields] == [host, *fields, (b"content-length", b"8")]
    assert request.body == b'{"a": 1}'


@pytest.mark.parametrize(("method", "length"), [(b"GET", []), (b"DELETE", []), (b"POST", [b"0"]), (b"PATCH", [b"0"])])
async def test_an_empty_body_has_a_length_only_where_one_is_expected(
    kind: Kind, method: bytes, length: list[bytes]
) -> None:
    """RFC 9110 §8.6: an upstream that waits for a body that never comes would hang the caller."""
    async with odd_peer(recording := Recording()) as peer, transport_to(kind, peer.port) as transport:
        await (await transport.send(method, b"/", [], b"")).read_all(10)

    assert recording.requests[0].values(b"content-length") == length
    assert recording.requests[0].values(b"transfer-encoding") == []


@pytest.mark.parametrize("size", [1, 30_000, 3_000_000])
async def test_a_body_of_any_size_arrives_whole(kind: Kind, size: int) -> None:
    """F1: large uploads; else a caller's prompt is cut."""
    body = bytes(range(256)) * (size // 256 + 1)
    async with odd_peer(recording := Recording()) as peer, transport_to(kind, peer.port) as transport:
        await (await transport.send(b"POST", b"/", [], body[:size])).read_all(10)

    assert recording.requests[0].body == body[:size]


async def test_a_streamed_body_goes_out_chunked(kind: Kind) -> None:
    """F1: streaming up; an empty piece must not end the body early."""
    pieces = (b"one", b"", b"two" * 100_000, b"three")
    async with odd_peer(recording := Recording()) as peer, transport_to(kind, peer.port) as transport:
        await (await transport.send(b"POST", b"/", [], in_pieces(*pieces))).read_all(10)

    assert recording.requests[0].body == b"".join(pieces)
    assert recording.requests[0].values(b"content-length") == []


async def test_a_streamed_body_keeps_the_length_it_was_announced_with(kind: Kind) -> None:
    """F1: object stores answer a chunked upload with 411; and a body of no bytes is framed as one in memory is."""
    pieces = (b"one", b"", b"two" * 100_000, b"three")
    size = len(b"".join(pieces))
    async with odd_peer(recording := Recording()) as peer, transport_to(kind, peer.port) as transport:
        for method, body, length in (
            (b"PUT", in_pieces(*pieces), size),
            (b"PUT", in_pieces(), 0),
            (b"GET", in_pieces(), 0),
        ):
            answer = await transport.send(method, b"/", [], body, length)
            assert await answer.read_all(10) == b"ok"

    assert [request.values(b"content-length") for request in recording.requests] == [[b"%d" % size], [b"0"], []]
    assert [request.values(b"transfer-encoding") for request in recording.requests] == [[], [], []]
    assert recording.requests[0].body == b"".join(pieces)
    assert peer.connections == 1


@pytest.mark.parametrize("pieces", [(b"some",), (b"some", b"more"), (b"much more",), ()])
async def test_a_body_of_another_length_than_announced_is_never_passed_as_whole(
    kind: Kind, pieces: tuple[bytes, ...]
) -> None:
    """F1, CWE-444: a cut upload stored as whole is a lost file; a byte too many is a second, unmetered request."""
    got: list[bytes] = []

    async def script(visit: Visit) -> None:
        await visit.head()
        while data := await visit.reader.read(1000):
            got.append(data)

    async def closed() -> bool:
        return peer.gone == 1

    async with odd_peer(script) as peer, transport_to(kind, peer.port) as transport:
        with pytest.raises(Fault) as caught:
            await transport.send(b"PUT", b"/", [], in_pieces(*pieces), 6)
        await until(closed)

    assert caught.value.kind is CLIENT_GONE
    assert len(b"".join(got)) < 6


async def test_a_failing_body_ends_the_send_with_its_own_error(kind: Kind) -> None:
    """A caller who leaves mid-upload must not look like an upstream that broke."""

    async def failing() -> AsyncIterator[bytes]:
        yield b"some"
        raise LookupError("the caller left")

    async with odd_peer(always(OK)) as peer, transport_to(kind, peer.port) as transport:
        with pytest.raises(LookupError):
            await transport.send(b"POST", b"/", [], failing())


@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        (b"GET", b"/", [(b"x-a", b"1\r\nx-b: 2")]),
        (b"GET", b"/", [(b"x-a", b"1\n")]),
        (b"GET", b"/", [(b"x-a", b"1\r")]),
        (b"GET", b"/", [(b"x-a", b"\0")]),
        (b"GET", b"/", [(b"x\r\ny", b"1")]),
        (b"GET", b"/ HTTP/1.1\r\nx: y\r\n\r\n", []),
        (b"GET", b"/a b", []),
        (b"GET / HTTP/1.1\r\nx: y\r\n\r\nGET", b"/", []),
    ],
)
async def test_what_would_add_a_line_is_refused(
    kind: Kind, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    """CWE-113: a caller who smuggles a request past the meter is a caller who pays nothing."""
    async with odd_peer(always(OK)) as peer, transport_to(kind, peer.port) as transport:
        with pytest.raises(Fault) as caught:
            await transport.send(method, target, fields, b"")

    assert caught.value.kind is INVALID_HEADER
    assert peer.connections == 0


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
        (CHUNKED + b"2\r\nok\r\n3;x=y\r\n...\r\n0\r\n\r\n", b"ok..."),
        (CHUNKED + b"2\r\nok\r\n0\r\nx-trailer: 1\r\n\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 3 + OK, b"ok"),
        (b"HTTP/1.1 404\r\ncontent-length: 2\r\n\r\nno", b"no"),
        (b"HTTP/1.1 599 Odd\r\ncontent-length: 2\r\n\r\nno", b"no"),
    ],
)
async def test_every_form_of_answer_is_read(kind: Kind, wire: bytes, body: bytes) -> None:
    """RFC 9112 §6.3: each way to delimit a body; a wrong one loses the usage at its end."""
    async with odd_peer(answers(wire)) as peer, transport_to(kind, peer.port) as transport:
        answer = await get(transport)

        assert await body_of(answer) == body
        assert await answer.read() == b""
    assert answer.status == int(wire[wire.rindex(b"HTTP/1") + 9 :][:3])


async def test_answer_fields_come_lower_case_trimmed_and_apart(kind: Kind) -> None:
    """Two set-cookie fields joined into one would log a user out."""
    head = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-Empty:\r\nset-cookie:  b=2 \r\nContent-Length: 0\r\n\r\n"
    async with odd_peer(answers(head)) as peer, transport_to(kind, peer.port) as transport:
        answer = await get(transport)

    assert answer.headers == [
        (b"set-cookie", b"a=1"), (b"x-empty", b""), (b"set-cookie", b"b=2"), (b"content-length", b"0"),
    ]  # fmt: skip


async def test_content_coding_is_left_alone(kind: Kind) -> None:
    """The caller asked for gzip, the caller gets gzip; decoding here would make its content-length a lie."""
    wire = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00"
    async with odd_peer(answers(wire)) as peer, transport_to(kind, peer.port) as transport:
        assert await body_of(await get(transport)) == b"\x1f\x8b\x08\x00"


async def test_a_redirect_is_an_answer_like_any_other(kind: Kind) -> None:
    """Design §9: nothing of an answer chooses where a caller's key is sent next."""
    wire = b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:1/\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n"
    async with odd_peer(recording := Recording(wire)) as peer, transport_to(kind, peer.port) as transport:
        for _ in range(2):
            answer = await get(transport)
            assert await answer.read_all(10) == b""
            assert answer.status == 307

    assert [request.values(b"cookie") for request in recording.requests] == [[], []]


@pytest.mark.parametrize("field", [b"content-length: 1000", b"transfer-encoding: chunked"])
async def test_the_answer_to_head_has_no_body_and_frees_its_connection(kind: Kind, field: bytes) -> None:
    """RFC 9110 §9.3.2: waiting for a body that never comes would hang a health check."""
    head = b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n"
    async with odd_peer(always(head)) as peer, transport_to(kind, peer.port) as transport:
        for _ in range(3):
            answer = await transport.send(b"HEAD", b"/", [], b"")
            assert await answer.read() == b""

    assert peer.connections == 1


async def test_pieces_are_handed_over_as_they_come(kind: Kind) -> None:
    """F1: a streamed token that waits for the next one is a slow gateway."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(CHUNKED + b"3\r\none\r\n")
        await peer.release.wait()
        await visit.say(b"3\r\ntwo\r\n0\r\n\r\n")

    async with odd_peer(script) as peer, transport_to(kind, peer.port) as transport:
        answer = await get(transport)

        assert await answer.read() == b"one"
        peer.release.set()
        assert await body_of(answer) == b"two"


async def test_read_all_gives_the_body_or_hands_back_what_was_too_much(kind: Kind) -> None:
    """A body too large to look into must still reach the caller whole."""
    wire = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + b"x" * 300_000
    async with odd_peer(always(wire)) as peer, transport_to(kind, peer.port) as transport:
        assert await (await get(transport)).read_all(300_000) == b"x" * 300_000
        answer = await get(transport)
        assert await answer.read_all(299_999) is None
        assert await body_of(answer) == b"x" * 300_000


class Recording:
    """A script that keeps the requests it answers."""

    def __init__(self, reply: bytes = OK) -> None:
        self.requests: list[Received] = []
        self._reply = reply

    async def __call__(self, visit: Visit) -> None:
        """Play one connection."""
        while True:
            self.requests.append(await visit.request())
            await visit.say(self._reply)
