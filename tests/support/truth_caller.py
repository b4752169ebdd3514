"""A caller on a raw socket, which reads its answer to the end or leaves in the middle, as its story says."""

import asyncio
import json
import random
import time

from tests.support.truth_story import TEXT, Story

SHOWN = f'"content": "{TEXT}"'.encode()
HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nhost: tollway\r\nauthorization: Bearer {key}\r\nx-truth: {name}\r\n"
    "content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
)


class Caller:
    """One caller, with a connection that it keeps as long as it may."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self._link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, story: Story, gate: asyncio.Event) -> None:
        """Send the story's request and live through its answer."""
        try:
            await self._ask(story, gate)
        except (OSError, EOFError):
            self.close()
        finally:
            story.over = True

    def close(self) -> None:
        """Let go of the connection, without a word."""
        if self._link is not None:
            self._link[1].transport.abort()
            self._link = None

    async def _ask(self, story: Story, gate: asyncio.Event) -> None:
        # One that the gateway has let go since the last answer can't be written to.
        if self._link is None or self._link[1].is_closing():
            self._link = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._link
        head = HEAD.format(key=self._key, name=story.name, length=len(story.body))
        writer.write(head.encode() + story.body)
        if story.leaves_at == 0:
            await _answered_or(gate, reader)
            await asyncio.sleep(random.Random(story.seed).random() / 20)
            return self._leave(story)
        lines = await _head(reader)
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        story.status = int(lines[0].split()[1])
        story.request_id = story.request_id or fields["x-request-id"]
        assert story.request_id == fields["x-request-id"]
        if "content-length" in fields:
            return self._read(story, await reader.readexactly(int(fields["content-length"])))
        return await self._read_chunks(story, reader)

    def _leave(self, story: Story) -> None:
        story.left_s = time.perf_counter()
        self.close()

    def _read(self, story: Story, body: bytes) -> None:
        answer = json.loads(body)
        if "error" in answer:
            story.code = str(answer["error"].get("code"))
        else:
            story.seen = answer["choices"][0]["message"]["content"].count(TEXT)
            story.whole = True

    async def _read_chunks(self, story: Story, reader: asyncio.StreamReader) -> None:
        held, ended, broken = b"", False, False
        while size := int(await reader.readuntil(b"\r\n"), 16):
            held += await reader.readexactly(size)
            await reader.readexactly(2)
            *events, held = held.split(b"\n\n")
            ended = ended or b"data: [DONE]" in events
            broken = broken or any(b'data: {"error"' in event for event in events)
            story.seen += sum(event.count(SHOWN) for event in events)
            if 0 < story.leaves_at <= story.seen:
                return self._leave(story)
        await reader.readexactly(2)
        story.whole = ended and not broken
        return None


async def _answered_or(gate: asyncio.Event, reader: asyncio.StreamReader) -> None:
    """Until the upstream begins to answer, or there is an answer all the same: a refusal."""
    either = [asyncio.ensure_future(gate.wait()), asyncio.ensure_future(reader.read(1))]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    for task in either:
        task.cancel()
    await asyncio.gather(*either, return_exceptions=True)


async def _head(reader: asyncio.StreamReader) -> list[str]:
    """The lines of the next answer's head, past interim ones."""
    while True:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        if not lines[0].startswith("HTTP/1.1 1"):
            return lines
