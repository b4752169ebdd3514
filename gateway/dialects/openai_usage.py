"""Reads the usage that OpenAI-shaped answers report, in whole bodies and in stream chunks.

Takes what providers really send: nulls, missing and extra fields, numbers as text. Never raises: what makes no sense
is no usage. A report of nothing at all is none either, so that an upstream that fills in zeros does not make an answer
free of charge.
"""

from typing import Any

import msgspec

from gateway.dialects.json_body import UNREADABLE
from gateway.dialects.token_count import MOST, count
from gateway.domain.usage import Usage


class _InputDetails(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: int = 0


class _OutputDetails(msgspec.Struct, frozen=True, gc=False):
    reasoning_tokens: int = 0


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _InputDetails = _InputDetails()
    completion_tokens_details: _OutputDetails = _OutputDetails()
    prompt_cache_hit_tokens: int = 0


class _Answer(msgspec.Struct, gc=False):
    """An answer as OpenAI sends it."""

    usage: _Usage


class _AnyAnswer(msgspec.Struct, gc=False):
    """An answer as others send it."""

    usage: Any = None


_answer = msgspec.json.Decoder(_Answer)
_any_answer = msgspec.json.Decoder(_AnyAnswer)


def read_usage(body: bytes) -> Usage | None:
    """The usage of a whole answer, None where it reports none."""
    try:
        report = _answer.decode(body).usage
    except UNREADABLE:
        return _read_any(body)
    prompt, output = report.prompt_tokens, report.completion_tokens
    cached, reasoning = report.prompt_tokens_details.cached_tokens, report.completion_tokens_details.reasoning_tokens
    if not 0 < prompt <= MOST or not 0 < output <= MOST or report.total_tokens != prompt + output:
        return _read_any(body)
    if not 0 <= cached <= prompt or not 0 <= reasoning <= output or report.prompt_cache_hit_tokens:
        return _read_any(body)
    return Usage(prompt, output, cached, reasoning)


def _read_any(body: bytes) -> Usage | None:
    """The same for an answer that isn't quite OpenAI's own: three times the cost, and rare."""
    try:
        return usage_of(_any_answer.decode(body).usage)
    except UNREADABLE:
        return None


def usage_of(report: Any) -> Usage | None:
    """The usage that a decoded `usage` field tells of; the Responses API's names are taken as well.

    Where the total is more than prompt and completion the difference is output: xAI and Gemini leave reasoning out of
    `completion_tokens`, and bill it. DeepSeek and Moonshot tell the cached part beside the counts, Perplexity the
    reasoning.
    """
    if not isinstance(report, dict):
        return None
    prompt = count(report.get("prompt_tokens")) or count(report.get("input_tokens"))
    completion = count(report.get("completion_tokens")) or count(report.get("output_tokens"))
    output = max(completion, count(report.get("total_tokens")) - prompt)
    if not prompt and not output:
        return None
    cached = _detail(report, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens")
    cached = cached or count(report.get("prompt_cache_hit_tokens")) or count(report.get("cached_tokens"))
    reasoning = _detail(report, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens")
    reasoning = reasoning or count(report.get("reasoning_tokens"))
    return Usage(prompt, output, min(cached, prompt), min(reasoning, output))


def added(first: Usage | None, second: Usage | None) -> Usage | None:
    """Both reports together: the steps of one answer."""
    if first is None or second is None:
        return first or second
    return first.plus(second)


def _detail(report: dict[str, Any], groups: tuple[str, str], name: str) -> int:
    details = report.get(groups[0]) or report.get(groups[1])
    return count(details.get(name)) if isinstance(details, dict) else 0
