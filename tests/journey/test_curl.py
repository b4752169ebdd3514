"""What `curl -N` shows of a streamed answer, as a raw socket sees it and, where there is one, by curl itself."""

import asyncio
import contextlib
import json
import shutil
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.support.sdk_upstream import said, sdk_upstream
from tests.support.stand import CHAT, stand
from tests.support.valkey import ValkeyServer

BODY = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]})
WORDS = ("one", " two", " three")
CURL = shutil.which("curl") or ""


@contextlib.asynccontextmanager
async def raw_socket(port: int, path: str, key: str) -> AsyncIterator[asyncio.StreamReader]:
    """The bytes of the answer as they come over the wire, chunk framing and all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len(BODY)}\r\n\r\n"
    writer.write((head + BODY).encode())
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def curl(port: int, path: str, key: str) -> AsyncIterator[asyncio.StreamReader]:
    """What `curl -N` prints."""
    words = ("-sN", f"http://127.0.0.1:{port}{path}", "-H", f"Authorization: Bearer {key}", "-d", BODY)
    process = await asyncio.create_subprocess_exec(CURL, *words, stdout=PIPE)
    assert process.stdout is not None
    try:
        yield process.stdout
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


READERS: list[Callable[[int, str, str], AbstractAsyncContextManager[asyncio.StreamReader]]] = [raw_socket]
if CURL:
    READERS.append(curl)


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("path", [CHAT, f"/open{CHAT}"], ids=["openai", "plain"])
async def test_every_event_is_shown_before_the_next_is_sent(
    tmp_path: Path,
    valkey: ValkeyServer,
    read: Callable[[int, str, str], AbstractAsyncContextManager[asyncio.StreamReader]],
    path: str,
) -> None:
    """F1, F2: the upstream waits with each event until the one before was read at the other end, on metered and on
    plain routes; a gateway that gathers the answer would hang here, and would leave people before a blank screen.
    """  # noqa: D205
    async with sdk_upstream(said(*WORDS, paced=True)) as upstream, stand(tmp_path, valkey, upstream.port) as here:
        async with asyncio.timeout(20), read(here.port, path, await here.account()) as answer:
            for seen in range(1, len(WORDS) + 3):
                event = await answer.readuntil(b"}]")  # where the choices of a chunk end
                assert b'"choices"' in event
                assert len(upstream.chunks) == seen
                upstream.go_on.release()
            tail = await answer.readuntil(b"data: [DONE]\n\n")

        assert (b"tollway-usage" in tail) == (path == CHAT)
