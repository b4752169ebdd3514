"""The line of a request: what it says, what it leaves out, and what it must never hold."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.keys import new_key
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.redaction import redact
from gateway.telemetry.request_line import request_line


def fields_of(record: RequestRecord) -> dict[str, Any]:
    """What the line shows of a record, in order."""
    record = msgspec.structs.replace(record, outcome=record.outcome or "ok")
    fields: dict[str, Any] = json.loads(request_line(record))
    return fields


FULL = RequestRecord(
    request_id="r1",
    method="POST",
    path="/v1/chat/completions",
    route="/v1/*",
    endpoint="/v1/chat/completions",
    dialect="openai",
    account_id="acme",
    key_id="abcdefghijkl",
    tier="free",
    model="gpt-tiny",
    upstream="openai",
    status=200,
    outcome="ok",
    streamed=True,
    counted_by="upstream",
    input_tokens=10,
    output_tokens=20,
    cached_tokens=3,
    reasoning_tokens=4,
    estimated_tokens=500,
    request_bytes=100,
    response_bytes=2_000,
    chunks=7,
    upstream_status=200,
    started_s=10.0,
    reserved_s=10.001,
    forwarded_s=10.25,
    first_byte_s=10.26,
    ended_s=11.5,
)


def test_a_served_request_tells_all_in_one_line() -> None:
    """F8: one line answers who asked for what, how it went, what it used and where the time went."""
    fields = fields_of(FULL)

    assert fields == {
        "request_id": "r1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "outcome": "ok",
        "route": "/v1/*",
        "endpoint": "/v1/chat/completions",
        "dialect": "openai",
        "account_id": "acme",
        "key_id": "abcdefghijkl",
        "tier": "free",
        "model": "gpt-tiny",
        "upstream": "openai",
        "upstream_status": 200,
        "estimated_tokens": 500,
        "counted_by": "upstream",
        "input_tokens": 10,
        "output_tokens": 20,
        "cached_tokens": 3,
        "reasoning_tokens": 4,
        "request_bytes": 100,
        "response_bytes": 2_000,
        "streamed": True,
        "chunks": 7,
        "admission_ms": 1.0,
        "upstream_ms": 249.0,
        "first_byte_ms": 260.0,
        "duration_ms": 1500.0,
    }


def test_what_did_not_happen_is_left_out() -> None:
    """F8: a refusal's line shows the limit and no zeros that read like counts or times."""
    fields = fields_of(RequestRecord(request_id="r1", status=429, limit="tokens/day", started_s=1.0, ended_s=1.002))

    assert fields["limit"] == "tokens/day"
    assert fields["duration_ms"] == 2.0
    assert fields.keys().isdisjoint({"model", "upstream", "input_tokens", "fault", "upstream_ms", "first_byte_ms"})


@pytest.mark.parametrize(("left_out", "span"), [("reserved_s", "admission_ms"), ("first_byte_s", "first_byte_ms")])
def test_a_moment_that_never_came_gives_no_span(left_out: str, span: str) -> None:
    """F8: a request that was never decided on must not look like one that took minutes."""
    fields = fields_of(msgspec.structs.replace(FULL, **{left_out: 0.0}))

    assert span not in fields
    assert fields["duration_ms"] == 1500.0
    assert not [name for name in fields if name.endswith("_s")]


def test_a_client_that_left_before_a_head_has_a_status_all_the_same() -> None:
    """F8: who counts lines by status finds every request in one of the counts."""
    assert fields_of(RequestRecord(outcome="client_gone"))["status"] == 0


def test_text_that_is_no_unicode_is_shown() -> None:
    """F8: a path with lone surrogates costs readability, not the line."""
    fields = fields_of(RequestRecord(path="/v1/\ud800", status=404))

    assert (fields["path"], fields["status"]) == ("/v1/\\ud800", 404)


def test_a_query_never_reaches_the_line() -> None:
    """F8: some API shapes carry keys in the query (`?key=`), and a log outlives the key's secrecy."""
    fields = fields_of(RequestRecord(path="/v1/models?key=AIzaSecret&q=what+I+asked"))

    assert fields["path"] == "/v1/models"


@given(st.text(max_size=20), st.sampled_from(["path", "model", "detail"]))
def test_a_key_in_any_foreign_text_is_blotted_out(around: str, name: str) -> None:
    """F8: our keys, a provider's keys and bearer tokens, wherever an upstream's or a caller's text repeats them."""
    _, key, _ = new_key(b"k" * 32)
    secret = key.rsplit("_", 1)[1]
    for text in (f"{around} {key} {around}", f"/{key}", f"{around} Bearer {secret}", f"sk-proj-{secret}"):
        record = msgspec.structs.replace(FULL, fault="upstream_broken", **{name: text})

        assert secret not in str(fields_of(record))


def test_long_foreign_texts_are_cut() -> None:
    """F8: a caller who sends a megabyte as its model must not fill the disk with it."""
    record = msgspec.structs.replace(FULL, path="/" + "p" * 9_999, model="m" * 9_999, method="M" * 9_999)

    assert len(str(fields_of(record))) < 2_000


def test_plain_words_are_left_alone() -> None:
    """F8: redaction that eats ordinary text makes the log useless on the day it is needed."""
    for text in ("task-1234 done", "tw_abc", "risk-assessment", "a basic idea", "bearer of news", "gpt-4o_mini"):
        assert redact(text) == text or "***" not in text
    assert redact("task-123456 and risk-4567") == "task-123456 and risk-4567"
