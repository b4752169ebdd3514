"""An OpenAI-shaped upstream for all endpoints but chat: it answers a path with what the test put there, and keeps what
it was asked. And the settings of a gateway with the shipped routes in front of it.
"""  # noqa: D205

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.odd_peer import Received, Visit, odd_peer
from tests.support.openai_wire import STREAM_HEAD, framed, http
from tests.support.stand import SETTINGS

SHIPPED = Path(__file__).parents[2] / "gateway.yaml"


def shipped_settings() -> str:
    """The stand's settings with the shipped routes."""
    routes = [route | {"upstream": "main"} for route in yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["routes"]]
    head, _, rest = SETTINGS.partition("routes:")
    tail = rest[rest.index("tiers:") :]
    return f"{head}routes: {json.dumps(routes).replace('{', '{{').replace('}', '}}')}\n{tail}"


@dataclass(slots=True)
class Endpoints:
    """`answers` by path: a JSON value, whole HTTP bytes, or the pieces of a stream. `asked` are the requests."""

    answers: dict[str, Any]
    port: int = 0
    asked: list[Received] = field(default_factory=list)

    async def serve(self, visit: Visit) -> None:
        """One connection, request by request."""
        while True:
            request = await visit.request()
            self.asked.append(request)
            answer = self.answers[request.line.split()[1].partition(b"?")[0].decode()]
            if isinstance(answer, bytes):
                await visit.say(answer)
            elif isinstance(answer, tuple):
                await visit.say(STREAM_HEAD, *(framed(piece) for piece in answer), framed(b""))
            else:
                await visit.say(http(json.dumps(answer).encode()))

    def json(self) -> dict[str, Any]:
        """The body of the last request."""
        body: dict[str, Any] = json.loads(self.asked[-1].body)
        return body


@contextlib.asynccontextmanager
async def endpoints(**answers: Any) -> AsyncIterator[Endpoints]:
    """Listen on loopback; answers by path below `/v1`, `__` for a slash."""
    upstream = Endpoints({f"/v1/{name.replace('__', '/')}": answer for name, answer in answers.items()})
    async with odd_peer(upstream.serve) as peer:
        upstream.port = peer.port
        yield upstream


def response(text: str = "hello there", **fields: Any) -> dict[str, Any]:
    """A whole response."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 13,
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "m",
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "usage": usage,
    } | fields


def events(*told: dict[str, Any]) -> tuple[bytes, ...]:
    """A stream of typed events, numbered."""
    numbered = [{"sequence_number": number} | one for number, one in enumerate(told)]
    return tuple(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in numbered)


def spoken(words: Sequence[str], **fields: Any) -> tuple[bytes, ...]:
    """A whole response as a stream, a word an event; `fields` are those of its last response."""
    begun = response(output=[], usage=None, status="in_progress")
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
    return events(
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", "part": empty, **place},
        *({"type": "response.output_text.delta", "delta": word, "logprobs": [], **place} for word in words),
        {"type": "response.output_text.done", "text": "".join(words), "logprobs": [], **place},
        {"type": "response.completed", "response": response("".join(words), **fields)},
    )
