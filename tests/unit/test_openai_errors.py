"""Faults and refusals in OpenAI's own error shape: the official SDK raises what each stands for (F2)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import openai
import pytest

from gateway.dialects.registry import DIALECTS
from gateway.domain.decisions import Refused
from gateway.domain.faults import INVALID_BODY, INVALID_KEY, UPSTREAM_BROKEN, UPSTREAM_TIMEOUT, Fault, FaultKind
from gateway.domain.limits import Remedy
from gateway.domain.usage import Usage

OPENAI = DIALECTS["openai"]
CHUNK = b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n'


@contextmanager
def answering(status: int, body: bytes, media_type: str) -> Iterator[openai.OpenAI]:
    """The official client, in front of a server that gives this answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        with openai.OpenAI(base_url=url, api_key="tw_x", max_retries=0, timeout=10) as client:
            yield client
        server.shutdown()


def ask(client: openai.OpenAI) -> None:
    """One whole chat completion."""
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


def refusal(limit: str = "tokens/day", wait_s: int | None = 90, remedy: Remedy = Remedy.WAIT) -> Refused:
    """A refusal by a limit of 1,000 of which 250 were needed."""
    return Refused(0, (900,), 1, limit, 1000, 250, wait_s, remedy)


@pytest.mark.parametrize(
    ("kind", "exception"),
    [
        (INVALID_KEY, openai.AuthenticationError),
        (INVALID_BODY, openai.BadRequestError),
        (UPSTREAM_TIMEOUT, openai.InternalServerError),
    ],
)
def test_a_fault_is_the_sdks_own_exception(kind: FaultKind, exception: type[openai.APIStatusError]) -> None:
    """An app that handles OpenAI's errors handles ours; it reads the public text and never the internal one."""
    body = OPENAI.fault_body(Fault(kind, "10.0.0.7 said no", public='n must be "an integer".'), "req-1")

    with answering(kind.status, body, "application/json") as client, pytest.raises(exception) as caught:
        ask(client)

    assert caught.value.code == kind.code
    assert caught.value.type == kind.type
    assert 'n must be "an integer".' in caught.value.message
    assert b"10.0.0.7" not in body
    assert json.loads(body)["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("refused", "kind", "code", "words"),
    [
        (refusal(), "tokens", "rate_limit_exceeded", "Limit of 1,000 tokens per day: 0 left, this request needs 250."),
        (refusal(), "tokens", "rate_limit_exceeded", "Try again in 90 seconds."),
        (refusal("requests/hour", 1), "requests", "rate_limit_exceeded", "Try again in 1 second."),
        (refusal("output_tokens/month"), "tokens", "rate_limit_exceeded", "1,000 output tokens per month"),
        (refusal(wait_s=None), "tokens", "rate_limit_exceeded", "larger than the limit itself"),
        (refusal("concurrency", 1), "requests", "rate_limit_exceeded", "at once: the limit is 1,000."),
        (refusal(remedy=Remedy.PAY), "insufficient_quota", "insufficient_quota", "a larger plan does"),
        (refusal(remedy=Remedy.PAY, wait_s=None), "insufficient_quota", "insufficient_quota", "a larger plan does"),
    ],
)
def test_a_refusal_says_which_limit_and_what_helps(refused: Refused, kind: str, code: str, words: str) -> None:
    """SDKs and people can tell "wait" from "pay": apps that retry a dead quota for ever are what this saves from."""
    body = OPENAI.refusal_body(refused, "req-1")

    with answering(429, body, "application/json") as client, pytest.raises(openai.RateLimitError) as caught:
        ask(client)

    assert (caught.value.type, caught.value.code) == (kind, code)
    assert words in caught.value.message
    assert ("Try again" in caught.value.message) == (refused.remedy is Remedy.WAIT and bool(refused.retry_after_s))


@pytest.mark.parametrize("sent", [b"", CHUNK, CHUNK + b": ping\n"])
def test_a_fault_inside_a_stream_is_raised_by_the_sdk(sent: bytes) -> None:
    """An answer that breaks off must not look complete to the app that reads it."""
    body = sent + OPENAI.stream_fault(Fault(UPSTREAM_BROKEN, "10.0.0.7 reset"), "req-1")

    with answering(200, body, "text/event-stream") as client:
        stream = client.chat.completions.create(model="m", messages=[], stream=True)
        with pytest.raises(openai.APIError, match="cut short") as caught:
            list(stream)

    assert caught.value.code == "upstream_broken"
    assert b"10.0.0.7" not in body
    assert body.endswith(b"data: [DONE]\n\n")


def test_the_sdk_skips_the_usage_comment() -> None:
    """The comment in place of the usage chunk is invisible to whoever didn't look for it."""
    body = CHUNK + OPENAI.usage_comment(Usage(5, 7)) + b"data: [DONE]\n\n"

    with answering(200, body, "text/event-stream") as client:
        chunks = list(client.chat.completions.create(model="m", messages=[], stream=True))

    assert [chunk.id for chunk in chunks] == ["1"]
