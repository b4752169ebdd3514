"""An upstream that keeps the true count: it plays each request's story on the wire and notes what it sent, and when.

Lives in the test's loop, so that its clock is the callers' too. Before `gate` is set it answers nobody: whatever the
gateway admits until then runs at once.
"""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator

from tests.support.openai_wire import DONE, STREAM_HEAD, chunk, completion, event, framed, http
from tests.support.truth_story import STATUSES, TEXT, Ending, Story

BEFORE_HEAD_S = 0.03
PAUSES_S = (0.0, 0.0, 0.0, 0.002, 0.02)
ERROR_EVENT = b'data: {"error": {"message": "overloaded", "type": "server_error"}}\n\n'


class TrueUpstream:
    """`stories` by name: a request tells its own in `x-truth`. `unknown` are requests that belong to none."""

    def __init__(self) -> None:
        self.port = 0
        self.stories: dict[str, Story] = {}
        self.gate = asyncio.Event()
        self.unknown: list[str] = []
        self._visits: set[asyncio.Task[None]] = set()

    async def visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of the gateway until either side ends it."""
        task = asyncio.current_task()
        if task is not None:
            self._visits.add(task)
            task.add_done_callback(self._visits.discard)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            while await self._exchange(reader, writer):
                pass
        writer.transport.abort() if writer.is_closing() else writer.close()

    async def stop(self) -> None:
        """End every connection."""
        for task in tuple(self._visits):
            task.cancel()
        if self._visits:
            await asyncio.wait(self._visits)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection goes on."""
        fields = await _fields(reader)
        await reader.readexactly(int(fields["content-length"]))
        story = self.stories.get(fields["x-truth"])
        if story is None:
            self.unknown.append(fields["x-truth"])
            return False
        story.arrivals += 1
        story.arrived_s = story.arrived_s or time.perf_counter()
        story.request_id = fields["x-request-id"]
        try:
            await self.gate.wait()
            await asyncio.sleep(BEFORE_HEAD_S)
            return await _play(story, writer)
        finally:
            story.ended_s = max(story.ended_s, story.arrived_s) or time.perf_counter()


@contextlib.asynccontextmanager
async def true_upstream() -> AsyncIterator[TrueUpstream]:
    """Listen on loopback until the end."""
    upstream = TrueUpstream()
    server = await asyncio.start_server(upstream.visit, "127.0.0.1", 0, backlog=2048)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        await upstream.stop()
        await server.wait_closed()


async def _fields(reader: asyncio.StreamReader) -> dict[str, str]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    pairs = [line.partition(":") for line in head.split("\r\n")[1:-2]]
    return {name.lower(): value.strip() for name, _, value in pairs}


async def _play(story: Story, writer: asyncio.StreamWriter) -> bool:
    if story.ending is Ending.SHUT:
        story.ended_s = time.perf_counter()
        return False
    if story.ending in STATUSES:
        story.ended_s = time.perf_counter()
        status = STATUSES[story.ending]
        _send(writer, http(b'{"error": {"message": "no"}}', status=f"{status} No"))
        return True
    return await (_stream(story, writer) if story.streamed else _whole(story, writer))


async def _whole(story: Story, writer: asyncio.StreamWriter) -> bool:
    body = completion(TEXT * story.tokens, prompt=story.prompt_tokens, output=story.tokens + story.hidden)
    fields = json.loads(body)
    fields["usage"].update(_details(story))
    if not story.reports_usage:
        del fields["usage"]
    answer = http(json.dumps(fields).encode())
    story.sent = story.tokens
    story.ended_s = time.perf_counter()
    if story.ending is Ending.CUT:
        _send(writer, answer[: len(answer) // 2])
        return False
    story.told = story.reports_usage
    _send(writer, answer)
    return True


async def _stream(story: Story, writer: asyncio.StreamWriter) -> bool:
    rng = random.Random(story.seed)
    _send(writer, STREAM_HEAD)
    last = story.tokens if story.ending is Ending.WHOLE else story.breaks_at
    for _ in range(last):
        await _write(story, rng, writer, framed(chunk(TEXT)), tokens=1)
    if story.ending is Ending.WHOLE:
        tail = [chunk(None, finish="stop"), *([_usage(story)] if story.reports_usage else []), DONE]
        # Its slot may be free from here on: the gateway settles at the end that comes now.
        story.ended_s = time.perf_counter()
        await _write(story, rng, writer, b"".join(framed(piece) for piece in tail) + framed(b""))
        story.told = story.reports_usage
        return True
    story.ended_s = time.perf_counter()
    if story.ending is Ending.CUT:
        half = framed(chunk(TEXT))[: rng.randint(0, 60)]
        _send(writer, half)
        return False
    _send(writer, framed(ERROR_EVENT) + framed(b""))
    return True


async def _write(
    story: Story, rng: random.Random, writer: asyncio.StreamWriter, data: bytes, *, tokens: int = 0
) -> None:
    """Bytes in one write or two, with a pause or without, as TCP would cut them.

    `tokens` count once the last byte is handed over: the gateway may have read it, and let go, in the pause after it.
    """
    cut = rng.randint(1, len(data) - 1) if rng.random() < 0.4 else len(data)
    for piece, counted in ((data[:cut], 0 if data[cut:] else tokens), (data[cut:], tokens)):
        if piece:
            _send(writer, piece)
            story.sent += counted
            await writer.drain()
            await asyncio.sleep(rng.choice(PAUSES_S))
    if writer.is_closing():
        raise ConnectionResetError


def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write, unless the gateway has let go: uvloop raises RuntimeError for that, the other loop nothing."""
    if writer.is_closing():
        raise ConnectionResetError
    writer.write(data)


def _usage(story: Story) -> bytes:
    usage = {
        "prompt_tokens": story.prompt_tokens,
        "completion_tokens": story.tokens + story.hidden,
        "total_tokens": story.prompt_tokens + story.tokens + story.hidden,
        **_details(story),
    }
    return event({"choices": [], "usage": usage})


def _details(story: Story) -> dict[str, dict[str, int]]:
    return {
        "prompt_tokens_details": {"cached_tokens": story.cached},
        "completion_tokens_details": {"reasoning_tokens": story.hidden},
    }
