"""What a streamed answer may cost, counted chunk by chunk: see `test_budgets`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.app import Gateway
from gateway.dialects.kept_text import BATCH_BYTES
from gateway.edge.exchange import Message, Receive, Scope, Send
from gateway.upstream.answer import LeanAnswer
from tests.support.budgets_course import Course, Run, run_course
from tests.support.openai_wire import DONE, STREAM_HEAD, framed
from tests.support.valkey import ValkeyServer

CHUNKS = 100
FUTURES_A_CHUNK = 1
"""The wait for the next bytes of the upstream."""

FUTURES_A_STREAM = 6
"""Those of any request, and the wait for the client's leaving."""

TASKS_A_STREAM = 2
"""The server's own, and the watcher for a client that leaves."""

DECODES_A_STREAM = 3
"""The request, its stream options, and the event that tells the usage."""

CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":" lantern"},"finish_reason":null}]%b}\n\n'
)
USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":100,"total_tokens":109}}\n\n'
)


@pytest.fixture
def run(tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a scenario against a warm gateway."""
    return partial(run_course, tmp_path, valkey, monkeypatch)


async def stream(course: Course, chunks: Sequence[bytes], **asked: Any) -> None:
    """One stream, each chunk sent once the one before it has reached the client."""
    drive = course.drive
    drive.ask(course.request(stream=True, **asked))
    await drive.asked()
    drive.reply(STREAM_HEAD, more=True)
    for chunk in chunks:
        drive.reply(framed(chunk), more=True)
        await drive.answers(_ends_with(b"\n\n\r\n"))
    drive.reply(framed(USAGE) + framed(DONE) + framed(b""))
    await drive.answers(_ends_with(b"0\r\n\r\n"))
    await course.settled()


def _ends_with(end: bytes) -> Callable[[bytes], bool]:
    return lambda got: got.endswith(end)


@pytest.mark.parametrize("options", [{"stream_options": {"include_usage": True}}, {}], ids=["asked", "added"])
@pytest.mark.parametrize("null_usage", [b"", b',"usage":null', b',"usage": null'], ids=["none", "compact", "spaced"])
def test_a_streamed_chunk_costs_one_future_and_one_write(run: Run, null_usage: bytes, options: dict[str, Any]) -> None:
    """A chunk is one wait and one write, and none is decoded, though many upstreams put a null usage in each; whether
    the client asked for the usage or the gateway did. A stream has hundreds of chunks: what one costs decides how many
    streams a worker holds.
    """  # noqa: D205

    async def scenario(course: Course) -> None:
        course.meter.start()
        await stream(course, [CHUNK % null_usage] * CHUNKS, **options)
        meter = course.meter
        assert meter.of("command") == {"EVALSHA": 2}
        assert meter.total("task") <= TASKS_A_STREAM, meter.of("task")
        assert meter.total("future") <= FUTURES_A_CHUNK * CHUNKS + FUTURES_A_STREAM, meter.of("future")
        assert meter.of("write").pop("client") <= CHUNKS + 3, "the head, the chunks, the usage, the end"
        assert meter.of("write")["upstream"] == 1
        assert meter.of("write")["redis"] == 2
        assert meter.total("decode") <= DECODES_A_STREAM, meter.of("decode")

    run(scenario)


def test_a_long_stream_is_decoded_a_batch_at_a_time(run: Run) -> None:
    """Text that may have to be counted is turned from JSON one batch of 32 KB at a time, never chunk by chunk: what is
    held of a stream stays bounded, at an eighth of the cost.
    """  # noqa: D205

    async def scenario(course: Course) -> None:
        chunk, chunks = CHUNK % b"", 5 * CHUNKS
        course.meter.start()
        await stream(course, [chunk] * chunks)
        batches = len(chunk) * chunks // BATCH_BYTES
        assert course.meter.total("decode") <= batches + DECODES_A_STREAM, course.meter.of("decode")

    run(scenario)


def test_a_chunk_that_needs_no_change_is_not_copied(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object that the upstream's parser made is the one that the server is given: no chunk is copied between."""
    arrived: list[bytes] = []
    sent: list[bytes] = []
    put, serve = LeanAnswer.put, Gateway.__call__

    def watched_put(self: LeanAnswer, chunk: bytes) -> None:
        arrived.append(chunk)
        put(self, chunk)

    async def watched_serve(self: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched_send(message: Message) -> None:
            sent.append(message.get("body", b""))
            await send(message)

        await serve(self, scope, receive, watched_send)

    async def scenario(course: Course) -> None:
        monkeypatch.setattr(LeanAnswer, "put", watched_put)
        monkeypatch.setattr(Gateway, "__call__", watched_serve)
        await stream(course, [CHUNK % b',"usage":null'] * CHUNKS)
        assert len(arrived) == CHUNKS + 1
        assert {id(chunk) for chunk in arrived[:CHUNKS]} <= {id(body) for body in sent}

    run(scenario)
