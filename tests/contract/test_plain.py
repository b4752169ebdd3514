"""Plain routes: any method, bodies of any size in bounded memory both ways, and HTTP's own fields left alone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.http_server import Caller
from tests.support.odd_peer import Received, Visit, always, answers, odd_peer
from tests.support.openai_wire import http
from tests.support.stand import Stand, stand
from tests.support.until import until
from tests.support.valkey import ValkeyServer


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"authorization": f"Bearer {key}"}


@contextlib.asynccontextmanager
async def calling(here: Stand) -> AsyncIterator[Caller]:
    """A raw connection to the gateway."""
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_who_is_refused_never_uploads(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1, A1: with `Expect: 100-continue` the body, however short, is asked for after admission, not before: who has
    used up the limit, or has no key, learns it from the head alone, and the upstream hears of those admitted only.
    """  # noqa: D205
    async with (
        odd_peer(always(http(b"ok"))) as peer,
        stand(tmp_path, valkey, peer.port) as here,
    ):
        key = await here.account("acme", "tiny")
        statuses = []
        for token in (key, key, key, "nobody"):
            head = f"PUT /open/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
            async with calling(here) as link:
                await link.say(f"{head}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n".encode())
                statuses.append((await link.answer()).status)
                if statuses[-1] == 100:
                    await link.say(b"hello")
                    statuses.append((await link.answer()).status)

        assert statuses == [100, 200, 100, 200, 429, 401]


async def test_an_upload_passes_at_the_pace_of_the_upstream(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1: "large uploads without buffering": what the upstream doesn't take stays with the client, and all of it
    arrives in the end.
    """  # noqa: D205
    size = 64 * 1024 * 1024
    got: list[int] = []

    async def script(visit: Visit) -> None:
        await visit.head()
        await peer.release.wait()
        seen = 0
        while seen < size:
            seen += len(await visit.reader.read(1 << 20))
        got.append(seen)
        await visit.say(http(b"ok"))

    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port) as here, calling(here) as link:
        key = await here.account()
        head = f"PUT /open/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: {size}\r\n\r\n"
        await link.say(head.encode())
        sent, piece = 0, bytes(1 << 18)

        async def push() -> None:
            nonlocal sent
            while sent < size:
                await link.say(piece)
                sent += len(piece)

        pushing = asyncio.create_task(push())

        async def held_back() -> bool:
            before = sent
            await asyncio.sleep(0.2)
            return 0 < sent == before

        await until(held_back)
        assert sent < size / 2
        peer.release.set()
        await pushing

        assert (await link.answer()).status == 200
        assert got == [size]


async def test_an_upload_keeps_its_announced_length(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1: object stores answer a chunked upload with 411 (Length Required); one of unknown length stays chunked."""
    body = bytes(range(256)) * 1024
    got: list[Received] = []

    async def script(visit: Visit) -> None:
        while True:
            got.append(await visit.request())
            await visit.say(http(b"ok"))

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        for content in (body, pieces()):
            assert (await here.client.put("/open/x", headers=bearer(key), content=content)).status_code == 200

    assert [request.values(b"content-length") for request in got] == [[b"262144"], []]
    assert [request.values(b"transfer-encoding") for request in got] == [[], [b"chunked"]]
    assert [request.body == body for request in got] == [True, True]


async def test_an_upload_that_breaks_off_never_passes_as_whole(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1: a client dies in its upload; the upstream must see the connection end short of the announced length, else a
    part of a file is stored as the file.
    """  # noqa: D205
    seen: list[int] = []

    async def script(visit: Visit) -> None:
        await visit.head()
        seen.append(0)
        while data := await visit.reader.read(1 << 20):
            seen[0] += len(data)

    async def arrived() -> bool:
        return seen == [150_000]

    async def closed() -> bool:
        return peer.gone == 1

    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        async with calling(here) as link:
            head = f"PUT /open/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: 200000\r\n\r\n"
            await link.say(head.encode() + bytes(150_000))
            await until(arrived)
        await until(closed)

    assert seen == [150_000]


async def test_ranges_pass_with_their_fields(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1: a download that is resumed must not be restarted by the gateway, nor told another length."""
    fields = 'accept-ranges: bytes\r\netag: "v1"\r\ncontent-range: bytes 2-4/9\r\n'
    beyond = http(b"", status="416 Range Not Satisfiable", fields="content-range: bytes */9\r\n")
    part = http(b"cde", status="206 Partial Content", fields=fields)
    async with odd_peer(answers(part, beyond)) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        got = await here.client.get("/open/x", headers={**bearer(key), "range": "bytes=2-4", "if-range": '"v1"'})
        over = await here.client.get("/open/x", headers={**bearer(key), "range": "bytes=99-"})

        assert (got.status_code, got.content, got.headers["content-length"]) == (206, b"cde", "3")
        assert (got.headers["content-range"], got.headers["etag"]) == ("bytes 2-4/9", '"v1"')
        assert (over.status_code, over.headers["content-range"]) == (416, "bytes */9")


async def test_a_head_request_tells_the_length_and_sends_nothing(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1: clients plan their downloads by it; a body would be read as the next answer."""
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: 5000000000\r\naccept-ranges: bytes\r\n\r\n"
    async with odd_peer(always(reply)) as peer, stand(tmp_path, valkey, peer.port) as here:
        key = await here.account()
        for _ in range(2):
            got = await here.client.head("/open/x", headers=bearer(key))

            assert (got.status_code, got.headers["content-length"]) == (200, "5000000000")


async def test_interim_answers_and_trailers_end_here(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F1: a 103 or a trailer that went on would be fields that nobody has looked through."""
    reply = (
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"
    )
    async with odd_peer(always(reply)) as peer, stand(tmp_path, valkey, peer.port) as here, calling(here) as link:
        key = await here.account()
        for _ in range(2):
            await link.say(f"GET /open/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
            got = await link.answer()

            assert (got.status, got.body) == (200, b"ok")
            assert not {b"link", b"trailer", b"x-sum"} & set(got.fields)
