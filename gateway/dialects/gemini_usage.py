"""Reads the `usageMetadata` that Gemini's answers carry. Never raises.

Source: Google, "GenerateContentResponse.UsageMetadata". The prompt has the cached content in it, and what tools gave
back is read by the model too; the thoughts stand beside the candidates, and are billed as output. Where the total is
more than these the rest is output. A report of nothing at all is no usage.
"""

from typing import Any

import msgspec

from gateway.dialects.json_body import UNREADABLE
from gateway.dialects.token_count import count
from gateway.domain.usage import Usage


class _Answer(msgspec.Struct, gc=False):
    usageMetadata: Any = None  # noqa: N815  # the name on the wire


_answer = msgspec.json.Decoder(_Answer)


def read_usage(body: bytes) -> Usage | None:
    """The usage of a whole answer, None where it reports none."""
    try:
        return usage_of(_answer.decode(body).usageMetadata)
    except UNREADABLE:
        return None


def usage_of(report: Any) -> Usage | None:
    """The usage that a decoded `usageMetadata` tells of."""
    if not isinstance(report, dict):
        return None
    prompt = count(report.get("promptTokenCount")) + count(report.get("toolUsePromptTokenCount"))
    thoughts = count(report.get("thoughtsTokenCount"))
    output = max(spoken_of(report) + thoughts, count(report.get("totalTokenCount")) - prompt)
    if not prompt and not output:
        return None
    return Usage(prompt, output, min(count(report.get("cachedContentTokenCount")), prompt), min(thoughts, output))


def spoken_of(report: dict[str, Any]) -> int:
    """Tokens of the answer itself; Vertex and the Live API name them otherwise."""
    return count(report.get("candidatesTokenCount")) or count(report.get("responseTokenCount"))
