"""OpenAI-shaped answers as an upstream puts them on the wire, with their true usage."""

import json
from typing import Any


def http(body: bytes, *, status: str = "200 OK", kind: str = "application/json", fields: str = "") -> bytes:
    """A whole HTTP answer with a length."""
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{fields}content-length: {len(body)}\r\n\r\n".encode() + body


def completion(text: str = "hello there", *, prompt: int = 9, output: int = 4, **usage: Any) -> bytes:
    """The body of a whole answer."""
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output, **usage},
        }
    ).encode()


def chunk(text: str | None, *, finish: str | None = None) -> bytes:
    """One event of a stream."""
    delta = {} if text is None else {"content": text}
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None})


def usage_chunk(prompt: int, output: int) -> bytes:
    """The last event but one: no choices, the usage alone."""
    usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    return event({"choices": [], "usage": usage})


def event(fields: dict[str, Any]) -> bytes:
    """One event with the fields that every chunk has."""
    whole = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", **fields}
    return b"data: " + json.dumps(whole).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def framed(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding; b"" is the last."""
    return b"%x\r\n%b\r\n" % (len(data), data)
