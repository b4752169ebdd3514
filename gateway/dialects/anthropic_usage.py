"""Reads the usage that the Messages API reports: of a whole answer, and of a stream as it grows.

Input is what was read anew, written to the cache and read from it; output has the thinking in it. Never raises; a
report of nothing at all is no usage, so that an upstream that fills in zeros does not make an answer free of charge.
"""

from typing import Any

import msgspec

from gateway.dialects.json_body import UNREADABLE
from gateway.dialects.token_count import count
from gateway.domain.usage import Usage


class _Answer(msgspec.Struct, gc=False):
    usage: Any = None


_answer = msgspec.json.Decoder(_Answer)


def read_usage(body: bytes) -> Usage | None:
    """The usage of a whole answer, None where it reports none."""
    try:
        return usage_of(_answer.decode(body).usage)
    except UNREADABLE:
        return None


def usage_of(report: Any) -> Usage | None:
    """The usage that a decoded `usage` field tells of.

    A request may take several samplings (`iterations`: server tools, compaction, an advisor, a fallback), and the
    figures at the top leave some of them out: the sum of all is taken where it is more. One that was declined before it
    said anything is billed to nobody (Anthropic, "Refusals and fallback").
    """
    if not isinstance(report, dict):
        return None
    top = _sampling(report)
    steps = report.get("iterations")
    if isinstance(steps, list):
        spoken = [step for step in map(_sampling, steps) if step.output_tokens]
        total = Usage(
            sum(step.input_tokens for step in spoken),
            sum(step.output_tokens for step in spoken),
            sum(step.cached_tokens for step in spoken),
        )
        if total.tokens > top.tokens:
            top = msgspec.structs.replace(total, reasoning_tokens=min(top.reasoning_tokens, total.output_tokens))
    return top if top.tokens else None


def _sampling(report: Any) -> Usage:
    if not isinstance(report, dict):
        return Usage()
    cached, output = count(report.get("cache_read_input_tokens")), count(report.get("output_tokens"))
    anew = count(report.get("input_tokens")) + count(report.get("cache_creation_input_tokens"))
    details = report.get("output_tokens_details")
    thinking = count(details.get("thinking_tokens")) if isinstance(details, dict) else 0
    return Usage(anew + cached, output, cached, min(thinking, output))
