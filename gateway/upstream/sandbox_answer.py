"""What the sandbox says: a chat completion request in, words, usage and finish reason out. Pure.

One word is one token, in and out, so that anyone can check a bill by counting. A word carries the space before it;
JSON is written with spaces and counted the same way.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.upstream.sandbox_schema import example

QUOTED_WORDS = 40
DEFAULT_MODEL = "sandbox"


class Message(msgspec.Struct):
    """One message; `content` is a text, a list of parts, or nothing."""

    role: str
    content: Any = None


class Function(msgspec.Struct):
    """A function the caller offers."""

    name: str
    parameters: Any = None


class Tool(msgspec.Struct):
    """A tool the caller offers; those that aren't functions are passed over."""

    function: Function | None = None


class Named(msgspec.Struct):
    """`tool_choice` that names a function."""

    function: Function | None = None


class StreamOptions(msgspec.Struct):
    """What a stream is to carry beside the answer."""

    include_usage: bool | None = None


class ChatRequest(msgspec.Struct):
    """The fields of a chat completion request that the sandbox heeds."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    model: str = DEFAULT_MODEL
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=16)] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | Named | None = None
    response_format: dict[str, Any] | None = None


class Spoken(msgspec.Struct, frozen=True):
    """One choice. `tool` is empty for a text; else `words` are the call's arguments. `finish` is the wire's word."""

    words: tuple[str, ...]
    finish: str
    tool: str = ""

    @property
    def text(self) -> str:
        """The whole of it."""
        return "".join(self.words)


def answer(asked: ChatRequest) -> Spoken:
    """The one thing the sandbox has to say to this request, cut to its maximum of tokens."""
    tool = _chosen(asked)
    if tool is not None:
        text, finish = _json(example(tool.parameters or {"type": "object"})), "tool_calls"
    else:
        text, finish = _content(asked), "stop"
    words = _words(text)
    most = asked.max_completion_tokens or asked.max_tokens
    if most is not None and most < len(words):
        words, finish = words[:most], "length"
    return Spoken(words, finish, tool.name if tool else "")


def usage(asked: ChatRequest, spoken: Spoken) -> dict[str, Any]:
    """Usage over all choices, in the wire's shape."""
    prompt = sum(len(_text(message.content).split()) for message in asked.messages)
    completion = len(spoken.words) * (asked.n or 1)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _chosen(asked: ChatRequest) -> Function | None:
    """The function to call, where the caller insists on one."""
    functions = [tool.function for tool in asked.tools or () if tool.function is not None]
    if asked.tool_choice == "required":
        return functions[0] if functions else None
    if isinstance(asked.tool_choice, Named) and asked.tool_choice.function is not None:
        name = asked.tool_choice.function.name
        return next((function for function in functions if function.name == name), None)
    return None


def _content(asked: ChatRequest) -> str:
    wanted = asked.response_format or {}
    if wanted.get("type") == "json_schema":
        described = wanted.get("json_schema")
        return _json(example(described.get("schema") if isinstance(described, dict) else None))
    if wanted.get("type") == "json_object":
        return _json({"answer": "This is the sandbox of Tollway."})
    said = next((_text(message.content) for message in reversed(asked.messages) if message.role == "user"), "")
    quoted = " ".join(said.split()[:QUOTED_WORDS])
    return (
        f'You said: "{quoted}" This is the sandbox of Tollway, not a model: '
        "it streams a fixed answer, and each word of it counts as one token."
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return " ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()


def _words(text: str) -> tuple[str, ...]:
    first, *rest = text.split(" ")
    return (first, *(f" {word}" for word in rest))
