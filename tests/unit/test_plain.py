"""The plain dialect: any API passes untouched, and only its requests are counted (row F3)."""

import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.dialect import Ask
from gateway.dialects.registry import DIALECTS
from gateway.domain.decisions import Refused
from gateway.domain.faults import UPSTREAM_BROKEN, Fault
from gateway.domain.limits import Remedy
from gateway.domain.usage import Usage

PLAIN = DIALECTS["plain"]


@given(body=st.binary())
def test_any_body_passes_and_asks_for_no_tokens(body: bytes) -> None:
    """No body of an unknown API may be refused or charged tokens for."""
    asked = PLAIN.read_request(body, b"/any")

    assert asked == Ask("", False, 0, 0, 1, body)
    assert asked.body is body
    assert PLAIN.read_usage(body) is None
    assert PLAIN.answer_text(body) == ""


def test_a_stream_passes_as_the_same_objects() -> None:
    """Bytes of an unknown stream are passed on as they are, and nothing of ours is put between them."""
    reader = PLAIN.stream_reader(strip_usage=True)
    data = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\n'

    assert reader.feed(data) is data
    assert reader.mid_event
    assert (reader.text_bytes(), reader.stop(Usage())) == (0, b"")
    assert (reader.usage, reader.text(), reader.error_seen, reader.finished) == (None, "", False, False)
    assert (reader.end(), reader.finished) == (b"", True)
    assert PLAIN.stream_fault(Fault(UPSTREAM_BROKEN), "req-1") == b""
    assert PLAIN.usage_comment(Usage(1, 2)) == b""


def test_errors_carry_code_text_and_request_id() -> None:
    """The caller of an internal API gets what it needs to tell support, and never an internal text."""
    fault = json.loads(PLAIN.fault_body(Fault(UPSTREAM_BROKEN, "10.0.0.7 reset"), "req-1"))

    assert fault == {"error": {"code": "upstream_broken", "message": UPSTREAM_BROKEN.public, "request_id": "req-1"}}


def test_wait_and_pay_have_codes_of_their_own() -> None:
    """A client can tell a limit that passes from a plan that is used up."""
    wait = Refused(0, (50,), 1, "requests/hour", 50, 1, 30, Remedy.WAIT)
    pay = Refused(0, (50,), 1, "requests/month", 50, 1, 30, Remedy.PAY)

    waiting = json.loads(PLAIN.refusal_body(wait, "req-1"))["error"]
    paying = json.loads(PLAIN.refusal_body(pay, "req-1"))["error"]

    assert (waiting["code"], paying["code"]) == ("rate_limit_exceeded", "insufficient_quota")
    assert "50 requests per hour" in waiting["message"]
    assert waiting["message"].endswith("Try again in 30 seconds.")


def test_the_registry_knows_each_dialect_by_its_own_name() -> None:
    """gateway.yaml names dialects by these."""
    assert {"openai", "anthropic", "gemini", "plain"} <= set(DIALECTS)
    assert all(dialect.name == name for name, dialect in DIALECTS.items())
