"""The OpenAI dialect of the Responses API: `/v1/responses`, whole and as a stream of typed events.

Its error shapes are those of `OpenAI`. An answer that is written in the background is taken at the estimate where the
request is answered before it is there: later looks at it are answers of other routes, and cost nothing.
"""

from typing import Any

import msgspec

from gateway.dialects.dialect import Ask, StreamReader
from gateway.dialects.embedded_media import text_bytes
from gateway.dialects.json_body import UNREADABLE, decode, without_mark
from gateway.dialects.openai import OpenAI
from gateway.dialects.openai_events import EventStream, usage_with_tools
from gateway.dialects.openai_request import bounded
from gateway.domain.faults import Fault
from gateway.domain.usage import Usage

_WRITTEN = ("text", "refusal", "arguments", "input", "code", "name")
"""Fields of output items, and of their parts, that a model wrote."""


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    stream: bool | None = None
    background: bool | None = None
    max_output_tokens: int | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: Any = None
    tool_usage: Any = None


class _Written(msgspec.Struct, gc=False):
    output: Any = None


class _ErrorEvent(msgspec.Struct, gc=False):
    """Both of OpenAI's shapes at once: its types describe the flat one, its servers send the nested one."""

    type: str
    sequence_number: int
    code: str
    message: str
    param: str | None
    error: msgspec.Raw


_request = msgspec.json.Decoder(_Request)
_answer = msgspec.json.Decoder(_Answer)
_written = msgspec.json.Decoder(_Written)


class OpenAIResponses(OpenAI):
    """A `Dialect`."""

    name = "openai-responses"

    def read_request(self, body: bytes, path: bytes) -> Ask:
        """What the body asks for. Raises Fault(INVALID_BODY). An empty body (a GET) asks for no tokens."""
        del path
        body = without_mark(body)
        if not body:
            return Ask(model="", streamed=False, prompt_bytes=0, max_output=0, choices=1, body=body)
        asked = decode(_request, body)
        return Ask(
            model=asked.model or "",
            streamed=asked.stream is True,
            prompt_bytes=text_bytes(body),
            max_output=bounded(asked.max_output_tokens),
            choices=1,
            body=body,
            estimate_stands=asked.background is True,
        )

    def read_usage(self, body: bytes) -> Usage | None:
        """The usage of a whole answer, all steps of the model and the pictures of its tools."""
        try:
            answer = _answer.decode(body)
        except UNREADABLE:
            return None
        return usage_with_tools(answer.usage, answer.tool_usage)

    def answer_text(self, body: bytes) -> str:
        """What the model wrote into the items of a whole answer."""
        try:
            output = _written.decode(body).output
        except UNREADABLE:
            return ""
        items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
        return "\n".join(text for item in items for text in _texts(item))

    def stream_reader(self, *, strip_usage: bool) -> StreamReader:
        """A reader for one stream."""
        del strip_usage
        return EventStream()

    def stream_fault(self, fault: Fault, request_id: str) -> bytes:
        """An `error` event, which SDKs raise as an APIError. A blank line first closes an event left half sent."""
        body = self.fault_body(fault, request_id)
        error = msgspec.json.decode(body, type=dict[str, msgspec.Raw])["error"]
        event = _ErrorEvent("error", 0, fault.kind.code, fault.public, None, error)
        return b"\n\nevent: error\ndata: " + msgspec.json.encode(event) + b"\n\n"


def _texts(item: dict[str, Any]) -> list[str]:
    """The texts of one output item, and of the parts of its `content` and `summary`."""
    found = [text for key in _WRITTEN if isinstance(text := item.get(key), str)]
    for parts in (item.get("content"), item.get("summary")):
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                found += [text for key in _WRITTEN if isinstance(text := part.get(key), str)]
    return found
