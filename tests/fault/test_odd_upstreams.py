"""Upstreams that are odd at the edges of HTTP, seen through the whole gateway by a caller who reads strictly.

The peers are written on h11, where that can say it, else in raw bytes; h11 also checks each request that they are sent,
and each answer that the caller gets: a third reading beside the gateway's own parsers.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h11

from tests.support.odd_peer import Visit, odd_peer
from tests.support.stand import Stand, stand
from tests.support.valkey import ValkeyServer

WHOLE, BODILESS = "passed on", "passed on, without a body"
BROKEN, CUT = "502 `upstream_broken`", "passed on, then cut"
HELLO = b"content-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
HINT = h11.InformationalResponse(status_code=103, headers=[("link", "</a>; rel=preload")])
FINE = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine"
Said = bytes | h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage


def ok(*fields: tuple[str, str], version: bytes = b"1.1") -> h11.Response:
    """A head."""
    return h11.Response(status_code=200, headers=list(fields), http_version=version)


def lines(*fields: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """An answer of exact bytes, with `hello` behind it."""
    return b"\r\n".join((start, *fields, b"\r\nhello"))


@dataclass(frozen=True, slots=True)
class Odd:
    """What an upstream says, and what the caller then gets; `closes` ends the connection behind it."""

    answer: str
    said: Sequence[Said]
    closes: bool = False
    method: str = "GET"


HI = h11.Data(data=b"hello")
END = h11.EndOfMessage()
LENGTH = ("content-length", "5")

ODD = {
    "sends two hundred interim answers first": Odd(WHOLE, [*[HINT] * 200, ok(LENGTH), HI, END]),
    "never stops sending interim answers": Odd(BROKEN, [b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 2000]),
    "sends an interim answer with a length": Odd(
        WHOLE, [b"HTTP/1.1 103 Hi\r\ncontent-length: 5\r\n\r\n", lines(b"content-length: 5")]
    ),
    "sends trailers": Odd(WHOLE, [ok(), HI, h11.EndOfMessage(headers=[("x-sum", "1")])]),
    "never stops sending trailers": Odd(CUT, [CHUNKED, *[b"x-trailer: 1\r\n" * 20_000] * 5]),
    "never ends a chunk extension": Odd(CUT, [CHUNKED[:-3], b"5;", *[b"x" * 300_000] * 5]),
    "sends chunk extensions": Odd(
        WHOLE, [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0;c\r\n\r\n"]
    ),
    "sends chunks of one byte": Odd(
        WHOLE, [ok(), *[h11.Data(data=byte) for byte in (b"h", b"e", b"l", b"l", b"o")], END]
    ),
    "sends a byte at a time": Odd(WHOLE, [bytes([byte]) for byte in lines(b"content-length: 5")]),
    "answers 204 with a body": Odd(BODILESS, [lines(b"content-length: 5", start=b"HTTP/1.1 204 No Content")]),
    "answers 204 with a length alone": Odd(BODILESS, [b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n"]),
    "answers 304 with a length alone": Odd(BODILESS, [b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"]),
    "answers 304 with a body": Odd(BODILESS, [lines(b"content-length: 5", start=b"HTTP/1.1 304 Not Modified")]),
    "answers HEAD with a body": Odd(BODILESS, [lines(b"content-length: 5")], method="HEAD"),
    "answers an upload before it has read it": Odd(
        "413, passed on", [lines(b"content-length: 5", start=b"HTTP/1.1 413 Too Large")], method="PUT"
    ),
    "speaks HTTP/1.0 and tells no length": Odd(WHOLE, [b"HTTP/1.0 200 OK\r\n\r\nhello"], closes=True),
    "speaks HTTP/1.0 in chunks": Odd(WHOLE, [CHUNKED.replace(b"1.1", b"1.0") + b"\r\n"], closes=True),
    "speaks HTTP/1.1 and tells no length": Odd(WHOLE, [b"HTTP/1.1 200 OK\r\n\r\nhello"], closes=True),
    "speaks HTTP/1.2": Odd(BROKEN, [lines(b"content-length: 5", start=b"HTTP/1.2 200 OK")]),
    "gives no reason": Odd(WHOLE, [lines(b"content-length: 5", start=b"HTTP/1.1 200")]),
    "gives a status of its own": Odd("799, passed on", [lines(b"content-length: 5", start=b"HTTP/1.1 799 Odd")]),
    "gives a status of four digits": Odd(BROKEN, [lines(b"content-length: 5", start=b"HTTP/1.1 2000 OK")]),
    "begins by an empty line": Odd(WHOLE, [b"\r\n" + lines(b"content-length: 5")]),
    "says `Connection: close` and does not": Odd(WHOLE, [lines(b"content-length: 5", b"connection: close")]),
    "says `Connection: close` and goes on": Odd(WHOLE, [lines(b"content-length: 5", b"connection: close"), FINE]),
    "says `keep-alive` and closes": Odd(WHOLE, [lines(b"content-length: 5", b"connection: keep-alive")], closes=True),
    "says more than its length": Odd(WHOLE, [lines(b"content-length: 5") + b" and more"]),
    "answers twice": Odd(WHOLE, [lines(b"content-length: 5") + FINE]),
    "tells the same length twice": Odd(BROKEN, [lines(b"content-length: 5", b"content-length: 5")]),
    "tells a length twice in one field": Odd(BROKEN, [lines(b"content-length: 5, 5")]),
    "tells a length with a sign": Odd(BROKEN, [lines(b"content-length: +5")]),
    "tells an empty length": Odd(BROKEN, [lines(b"content-length:")]),
    "tells a length and a coding": Odd(BROKEN, [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n" + CHUNKED[17:] + b"\r\n"]),
    "tells a coding and a length": Odd(BROKEN, [CHUNKED[:46] + b"content-length: 5\r\n" + CHUNKED[46:] + b"\r\n"]),
    "tells a coding that nobody asked for": Odd(BROKEN, [lines(b"transfer-encoding: gzip")], closes=True),
    "tells chunked twice, and codes once": Odd(WHOLE, [CHUNKED.replace(b"chunked", b"chunked, chunked") + b"\r\n"]),
    "tells chunked, then another coding": Odd(
        BROKEN, [CHUNKED.replace(b"chunked", b"chunked, gzip") + b"\r\n"], closes=True
    ),
    "tells a coding that only looks chunked": Odd(
        BROKEN, [CHUNKED.replace(b"chunked", b"xchunked") + b"\r\n"], closes=True
    ),
    "folds a field": Odd(BROKEN, [lines(b"x: a\r\n b", b"content-length: 5")]),
    "hides a length in a fold": Odd(BROKEN, [lines(b"x: a\r\n content-length: 9", b"content-length: 5")]),
    "puts CR into a field": Odd(BROKEN, [lines(b"x: a\rset-cookie: b", b"content-length: 5")]),
    "puts LF into a field": Odd(BROKEN, [lines(b"x: a\nset-cookie: b", b"content-length: 5")]),
    "ends its lines by LF": Odd(BROKEN, [b"HTTP/1.1 200 OK\ncontent-length: 5\n\nhello"]),
    "puts a blank before a colon": Odd(BROKEN, [lines(b"content-length : 5")]),
    "puts a blank before a field": Odd(BROKEN, [b"HTTP/1.1 200 OK\r\n content-length: 5\r\n\r\nhello"]),
    "has a field without a colon": Odd(BROKEN, [lines(b"x", b"content-length: 5")]),
    "has a byte above ASCII in a field's name": Odd(BROKEN, [lines(b"x\xe9: a", b"content-length: 5")]),
}


async def play(visit: Visit) -> None:
    """Read requests by h11 and answer each as its path says."""
    while True:
        wire = h11.Connection(h11.SERVER)
        while not isinstance(request := wire.next_event(), h11.Request):
            data = await visit.reader.read(65_536)
            if not data:
                return
            wire.receive_data(data)
        name = request.target.rpartition(b"/")[2].decode()
        odd = list(ODD.values())[int(name)] if name != "fine" else Odd(WHOLE, [FINE])
        for said in odd.said:
            await visit.say(said if isinstance(said, bytes) else wire.send(said) or b"")
        if odd.closes:
            return


async def ask(here: Stand, key: str, name: str, method: str = "GET") -> tuple[str, bytes]:
    """What becomes of a request, as h11 reads it, in the words of the table; and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    wire = h11.Connection(h11.CLIENT)
    headers = [("host", "a"), ("authorization", f"Bearer {key}")]
    headers += [("content-length", "900000")] if method == "PUT" else []
    writer.write(wire.send(h11.Request(method=method, target=f"/open/{name}", headers=headers)) or b"")
    if method != "PUT":
        wire.send(END)
    status, body = 0, b""
    try:
        while not isinstance(event := wire.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                wire.receive_data(await reader.read(65_536))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
    except (h11.RemoteProtocolError, OSError):
        return (CUT if status == 200 else "cut"), body
    finally:
        writer.close()
    if b'"upstream_broken"' in body:
        return f"{status} `upstream_broken`", body
    told = "" if status in {200, 204, 304} else f"{status}, "
    return told + (WHOLE if body else BODILESS), body


async def test_odd_answers_become_what_the_page_says(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1, F5: "h11-based odd peers: each has a stated answer": an answer that can be read in two ways is none, and
    nothing of an odd one is left for the next caller.
    """  # noqa: D205
    got, next_ones = {}, set()
    async with odd_peer(play) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        for number, (name, odd) in enumerate(ODD.items()):
            async with asyncio.timeout(30):
                got[name], body = await ask(here, key, str(number), odd.method)
                next_ones.add(await ask(here, key, "fine"))
            assert body in {b"hello", b""} or got[name] == BROKEN, name

    assert got == {name: odd.answer for name, odd in ODD.items()}
    assert next_ones == {(WHOLE, b"fine")}
