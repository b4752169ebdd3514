"""OpenAI's endpoints that stream typed events, on the wire: responses, transcriptions, speech and images (OpenAI,
"Streaming events").
"""  # noqa: D205

import base64
import json
from dataclasses import dataclass
from typing import Any

from gateway.domain.usage import Usage
from tests.support.matrix.openai_chat import FUNCTION, OVERLOADED
from tests.support.matrix.wire import WORD, billed
from tests.support.openai_endpoints import response

PLACE = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
DRAWN = {"background": "opaque", "created_at": 1, "output_format": "png", "quality": "low", "size": "1024x1024"}
SOUND = base64.b64encode(bytes(96)).decode()
TOOL_SHARE = 10
"""Of the input of an answer in steps: what a tool's own model read."""


def report(usage: Usage) -> dict[str, Any]:
    """`usage`, as all of them tell it."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.tokens,
    }


class Typed:
    """What the wires of typed events have in common."""

    kind = "text/event-stream"
    answer_kind = "application/json"
    told: Usage | None = None

    def begin(self) -> list[bytes]:
        """Nothing comes before the answer."""
        return []

    def error(self, words: int) -> bytes:
        """An error event."""
        return _event({"type": "error", "sequence_number": words + 9, "error": OVERLOADED})

    def call(self, *, streamed: bool) -> bytes:
        """Never asked for."""
        raise NotImplementedError(streamed)


@dataclass(frozen=True, slots=True)
class Responses(Typed):
    """A `Wire`."""

    def begin(self) -> list[bytes]:
        """The response, its first item and that one's first part are announced."""
        begun = response(output=[], usage=None, status="in_progress")
        item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
        return [
            _event({"type": "response.created", "sequence_number": 0, "response": begun}),
            _event({"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": item}),
        ]

    def word(self, number: int, *, tells: bool) -> bytes:
        """A delta."""
        del tells
        delta = {"type": "response.output_text.delta", "sequence_number": number + 2, "delta": WORD, "logprobs": []}
        return _event(delta | PLACE)

    def end(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """The whole response once more."""
        done = json.loads(self.whole(words, tells=tells, steps=steps))
        return _event({"type": "response.completed", "sequence_number": words + 2, "response": done})

    def whole(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """A response. Of one in steps, what drew a picture is told apart."""
        usage = billed(words)
        if not steps:
            return json.dumps(response(WORD * words, usage=report(usage) if tells else None)).encode()
        own = Usage(usage.input_tokens - TOOL_SHARE, usage.output_tokens - 1, usage.cached_tokens, 3)
        tool = {"input_tokens": TOOL_SHARE, "output_tokens": 1, "total_tokens": TOOL_SHARE + 1}
        return json.dumps(response(WORD * words, usage=report(own), tool_usage={"image_gen": tool})).encode()

    def call(self, *, streamed: bool) -> bytes:
        """A function call."""
        item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "status": "completed", **FUNCTION}
        done = response(output=[item], usage=report(billed(0)))
        if not streamed:
            return json.dumps(done).encode()
        arguments = {"type": "response.function_call_arguments.delta", "delta": FUNCTION["arguments"]}
        return (
            self.begin()[0]
            + _event({"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": item})
            + _event(arguments | {"sequence_number": 2, "item_id": "fc_1", "output_index": 0})
            + _event({"type": "response.completed", "sequence_number": 3, "response": done})
        )


@dataclass(frozen=True, slots=True)
class Transcriptions(Typed):
    """A `Wire`."""

    def word(self, number: int, *, tells: bool) -> bytes:
        """A delta."""
        del number, tells
        return _event({"type": "transcript.text.delta", "delta": WORD})

    def end(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """The whole transcript once more."""
        return _event({"type": "transcript.text.done", **json.loads(self.whole(words, tells=tells, steps=steps))})

    def whole(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """A transcript."""
        del steps
        return json.dumps({"text": WORD * words} | _usage(words, tells=tells, kind="tokens")).encode()


@dataclass(frozen=True, slots=True)
class Speech(Typed):
    """A `Wire`: a word is a piece of sound. A whole answer is plain sound, which tells nothing."""

    answer_kind = "audio/mpeg"

    def word(self, number: int, *, tells: bool) -> bytes:
        """A delta."""
        del number, tells
        return _event({"type": "speech.audio.delta", "audio": SOUND})

    def end(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """The end."""
        del steps
        return _event({"type": "speech.audio.done"} | _usage(words, tells=tells))

    def whole(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """Sound."""
        del tells, steps
        return bytes(96 * words)


@dataclass(frozen=True, slots=True)
class Images(Typed):
    """A `Wire`: a word is a partial picture."""

    def word(self, number: int, *, tells: bool) -> bytes:
        """A partial picture."""
        del tells
        partial = {"type": "image_generation.partial_image", "b64_json": SOUND, "partial_image_index": number}
        return _event(partial | DRAWN)

    def end(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """The picture."""
        del steps
        return _event({"type": "image_generation.completed", "b64_json": SOUND} | DRAWN | _usage(words, tells=tells))

    def whole(self, words: int, *, tells: bool, steps: bool) -> bytes:
        """A picture."""
        del steps
        return json.dumps({"created": 1, "data": [{"b64_json": SOUND}]} | _usage(words, tells=tells)).encode()


def _usage(words: int, *, tells: bool, **fields: str) -> dict[str, Any]:
    return {"usage": report(billed(words)) | fields} if tells else {}


def _event(fields: dict[str, Any]) -> bytes:
    return f"event: {fields['type']}\ndata: {json.dumps(fields)}\n\n".encode()
