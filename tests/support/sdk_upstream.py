"""An OpenAI-shaped upstream that keeps its own books: what it was asked, what it said, and the usage it reported.

A test hands it turns; each chat request takes the next, and the last one repeats. As OpenAI does, it streams only where
asked to, and tells the usage of a stream only where `include_usage` asks for it. Also lists models and embeds.
"""

import asyncio
import base64
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.odd_peer import Received, Visit, odd_peer
from tests.support.openai_wire import DONE, STREAM_HEAD, event, framed, http

VECTOR = (0.25, -0.5, 1.0)
"""What it embeds any text as."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer, as the deltas of its message.

    Of a stream: `paced` waits for `Upstream.go_on` before each chunk but the first; `stops` sends so many chunks and
    then waits for the client to leave; `cut` sends so many and drops the connection.
    """

    deltas: tuple[dict[str, Any], ...]
    finish: str = "stop"
    input_tokens: int = 9
    output_tokens: int = 4
    paced: bool = False
    stops: int | None = None
    cut: int | None = None

    @property
    def usage(self) -> dict[str, int]:
        """What it reports."""
        total = self.input_tokens + self.output_tokens
        return {"prompt_tokens": self.input_tokens, "completion_tokens": self.output_tokens, "total_tokens": total}


def said(*words: str, **fields: Any) -> Turn:
    """A turn that says these words, one a chunk."""
    return Turn(tuple({"content": word} for word in words), **fields)


def called(*calls: tuple[str, tuple[str, ...]], **fields: Any) -> Turn:
    """A turn that calls functions: each a name, and the pieces in which its arguments come."""
    deltas: list[dict[str, Any]] = []
    for index, (name, pieces) in enumerate(calls):
        function = {"name": name, "arguments": ""}
        deltas.append(
            {"tool_calls": [{"index": index, "id": f"call_{index}", "type": "function", "function": function}]}
        )
        deltas += ({"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces)
    return Turn(tuple(deltas), finish="tool_calls", **fields)


@dataclass(slots=True)
class Upstream:
    """The books. `chunks` are those that carry a choice, as they were sent; `left` says that a client hung up."""

    turns: list[Turn | bytes]
    port: int = 0
    lines: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    input_tokens: int = 0
    output_tokens: int = 0
    go_on: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, visit: Visit) -> None:
        """One connection, request by request."""
        while True:
            request = await visit.request()
            self.lines.append(request.line.decode())
            path = request.line.split()[1]
            if path.endswith(b"/chat/completions"):
                await self._chat(visit, request)
            elif path.endswith(b"/embeddings"):
                await visit.say(http(_embedded(json.loads(request.body))))
            else:
                model = {"id": "m", "object": "model", "created": 1, "owned_by": "us"}
                await visit.say(http(json.dumps({"object": "list", "data": [model]}).encode()))

    async def _chat(self, visit: Visit, request: Received) -> None:
        asked = json.loads(request.body)
        self.asked.append(asked)
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        if isinstance(turn, bytes):
            await visit.say(turn)
        elif asked.get("stream"):
            await self._stream(visit, turn, told=bool((asked.get("stream_options") or {}).get("include_usage")))
        else:
            self._report(turn)
            await visit.say(http(_whole(turn)))

    async def _stream(self, visit: Visit, turn: Turn, *, told: bool) -> None:
        await visit.say(STREAM_HEAD)
        null = {"usage": None} if told else {}
        for number, chunk in enumerate(_chunks(turn)):
            if number in {turn.stops, turn.cut}:
                return await self._end(visit, turn)
            if turn.paced and number:
                await self.go_on.acquire()
            self.chunks.append(chunk)
            await visit.say(framed(event(chunk | null)))
        self._report(turn)
        if told:
            await visit.say(framed(event({"choices": [], "usage": turn.usage})))
        return await visit.say(framed(DONE), framed(b""))

    async def _end(self, visit: Visit, turn: Turn) -> None:
        if turn.cut is None:
            await visit.client_gone()
            self.left.set()
        raise EOFError

    def _report(self, turn: Turn) -> None:
        self.input_tokens += turn.input_tokens
        self.output_tokens += turn.output_tokens


@contextlib.asynccontextmanager
async def sdk_upstream(*turns: Turn | bytes) -> AsyncIterator[Upstream]:
    """Listen on loopback; a turn of bytes goes over the wire as it is."""
    upstream = Upstream(list(turns) or [said("hello", " there")])
    async with odd_peer(upstream.serve) as peer:
        upstream.port = peer.port
        yield upstream


def _chunks(turn: Turn) -> list[dict[str, Any]]:
    deltas = [{"role": "assistant", "content": None}, *turn.deltas, {}]
    finishes = [None] * (len(deltas) - 1) + [turn.finish]
    return [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        for delta, finish in zip(deltas, finishes, strict=True)
    ]


def _whole(turn: Turn) -> bytes:
    calls: dict[int, dict[str, Any]] = {}
    for delta in turn.deltas:
        for call in delta.get("tool_calls", ()):
            whole = calls.setdefault(call["index"], json.loads(json.dumps(call)))
            if whole["id"] != call.get("id"):
                whole["function"]["arguments"] += call["function"]["arguments"]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(delta.get("content", "") for delta in turn.deltas) or None,
    }
    if calls:
        message["tool_calls"] = [
            {key: value for key, value in call.items() if key != "index"} for call in calls.values()
        ]
    choice = {"index": 0, "message": message, "finish_reason": turn.finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps(head | {"choices": [choice], "usage": turn.usage}).encode()


def _embedded(asked: dict[str, Any]) -> bytes:
    """The SDK asks for base64 of little-endian floats, unless told otherwise."""
    packed = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()
    vector = packed if asked.get("encoding_format") == "base64" else VECTOR
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, _ in enumerate(asked["input"])]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return json.dumps({"object": "list", "model": "m", "data": data, "usage": usage}).encode()
