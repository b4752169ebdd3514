"""Ends a stream of typed events in its upstream's place. Never raises: what can't be read is left out."""

import re

import msgspec

from gateway.dialects.json_body import UNREADABLE
from gateway.domain.usage import Usage

_SEQUENCE = re.compile(rb'"sequence_number"\s*:\s*(\d{1,9})')
_event = msgspec.json.Decoder(dict[str, msgspec.Raw])


def incomplete_response(told: bytes, latest: bytes, said: str, usage: Usage) -> bytes:
    """`response.incomplete` for want of output tokens: the response as `told` by its last event, what it `said`, and
    the usage. `latest` are the events sent last; their numbers are counted on.
    """  # noqa: D205
    response = _response(told)
    number = max((int(found) for found in _SEQUENCE.findall(latest)), default=0) + 1
    part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
    message = {
        "id": "msg_incomplete",
        "type": "message",
        "role": "assistant",
        "status": "incomplete",
        "content": [part],
    }
    response |= {
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "output": [message] if said else [],
        "usage": {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.tokens,
        },
    }
    return _framed({"type": "response.incomplete", "sequence_number": number, "response": response})


def transcript_end(said: str, usage: Usage) -> bytes:
    """`transcript.text.done` with what was heard so far, and the usage."""
    tokens = {
        "type": "tokens",
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.tokens,
    }
    return _framed({"type": "transcript.text.done", "text": said, "usage": tokens})


def _response(told: bytes) -> dict[str, object]:
    try:
        return dict(_event.decode(_event.decode(told)["response"]))
    except UNREADABLE:
        return {}


def _framed(event: dict[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), msgspec.json.encode(event))
