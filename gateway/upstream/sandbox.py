"""The built-in upstream: an OpenAI-shaped chat API that answers without a model, for a first look and for trials.

A bare ASGI app. POST …/chat/completions, streamed word by word or whole, with true usage; GET …/models; anything else
is an error, in the shape that whoever asks for such a path reads. What it says is decided in `sandbox_answer`.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import msgspec

from gateway.dialects.registry import dialect_of_path
from gateway.domain.faults import INVALID_BODY, NOT_FOUND, Fault
from gateway.upstream.sandbox_answer import DEFAULT_MODEL, ChatRequest, Spoken, answer, usage

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

WORD_PAUSE_S = 0.02

KNOWN = "The sandbox speaks OpenAI's chat completions alone: POST /v1/chat/completions and GET /v1/models"
REMEDY = "For other APIs give the route an upstream that has them."

_decoder = msgspec.json.Decoder(ChatRequest)
_encode = msgspec.json.Encoder().encode


class Sandbox:
    """The app. `pause_s` stands between two words, of a streamed answer only."""

    def __init__(self, pause_s: float = WORD_PAUSE_S) -> None:
        self._pause_s = pause_s

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """One HTTP exchange."""
        method, path = scope["method"], scope["path"]
        body = await _body(receive)
        if method == "POST" and path.endswith("/chat/completions"):
            await self._chat(body, path, send)
        elif method == "GET" and path.endswith("/models"):
            await _reply(send, 200, {"object": "list", "data": [_model()]})
        else:
            await _refuse(send, path, Fault(NOT_FOUND, public=f"{KNOWN}, not {method} {path}. {REMEDY}"))

    async def _chat(self, body: bytes, path: str, send: Send) -> None:
        try:
            asked = _decoder.decode(body)
        except msgspec.DecodeError as error:
            text = f"The body is not a chat completion request: {error}."
            await _refuse(send, path, Fault(INVALID_BODY, public=text))
            return
        spoken = answer(asked)
        if not asked.stream:
            await _reply(send, 200, _whole(asked, spoken))
            return
        kind = b"text/event-stream; charset=utf-8"
        await _start(send, 200, kind, (b"x-request-id", _request_id().encode()))
        for number, chunk in enumerate(_chunks(asked, spoken)):
            if self._pause_s and number:
                await asyncio.sleep(self._pause_s)
            await _more(send, b"data: " + _encode(chunk) + b"\n\n")
        await _more(send, b"data: [DONE]\n\n", last=True)


def _whole(asked: ChatRequest, spoken: Spoken) -> dict[str, Any]:
    choices = []
    for index in range(asked.n or 1):
        message: dict[str, Any] = {"role": "assistant", "content": None if spoken.tool else spoken.text}
        message["refusal"] = None
        if spoken.tool:
            message["tool_calls"] = [_call(spoken, spoken.text)]
        choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": spoken.finish})
    return _head(asked, "chat.completion") | {"choices": choices, "usage": usage(asked, spoken)}


def _chunks(asked: ChatRequest, spoken: Spoken) -> Iterator[dict[str, Any]]:
    """Every event of the stream, `[DONE]` excepted: all choices advance together, a word at a time."""
    with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
    head = _head(asked, "chat.completion.chunk") | ({"usage": None} if with_usage else {})
    first: dict[str, Any] = {"role": "assistant", "content": None if spoken.tool else "", "refusal": None}
    if spoken.tool:
        first["tool_calls"] = [{"index": 0} | _call(spoken, "")]
    choices = range(asked.n or 1)
    yield from (head | {"choices": [_delta(index, first)]} for index in choices)
    for word in spoken.words:
        told = {"tool_calls": [{"index": 0, "function": {"arguments": word}}]} if spoken.tool else {"content": word}
        yield from (head | {"choices": [_delta(index, told)]} for index in choices)
    yield from (head | {"choices": [_delta(index, {}, spoken.finish)]} for index in choices)
    if with_usage:
        yield head | {"choices": [], "usage": usage(asked, spoken)}


def _head(asked: ChatRequest, kind: str) -> dict[str, Any]:
    number = secrets.token_hex(12)
    return {"id": f"chatcmpl-{number}", "object": kind, "created": int(time.time()), "model": asked.model}


def _call(spoken: Spoken, arguments: str) -> dict[str, Any]:
    function = {"name": spoken.tool, "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _delta(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _model() -> dict[str, Any]:
    return {"id": DEFAULT_MODEL, "object": "model", "created": 0, "owned_by": "tollway"}


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _refuse(send: Send, path: str, fault: Fault) -> None:
    dialect, request_id = dialect_of_path(path), _request_id()
    body = dialect.fault_body(fault, request_id)
    ids = {b"x-request-id", dialect.request_id_field}
    await _whole_body(send, fault.kind.status, body, [(name, request_id.encode()) for name in sorted(ids)])


async def _reply(send: Send, status: int, value: Any) -> None:
    await _whole_body(send, status, _encode(value), [(b"x-request-id", _request_id().encode())])


async def _whole_body(send: Send, status: int, body: bytes, ids: list[tuple[bytes, bytes]]) -> None:
    await _start(send, status, b"application/json", (b"content-length", b"%d" % len(body)), *ids)
    await _more(send, body, last=True)


def _request_id() -> str:
    return f"req_{secrets.token_hex(12)}"


async def _start(send: Send, status: int, kind: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", kind), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _more(send: Send, body: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})


sandbox_app = Sandbox()
