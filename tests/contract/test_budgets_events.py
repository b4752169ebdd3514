"""What a stream of typed events may cost, counted event by event: see `test_budgets`."""

from pathlib import Path

import pytest

from gateway.dialects.kept_text import BATCH_BYTES
from tests.contract.test_budgets_streams import FUTURES_A_CHUNK, FUTURES_A_STREAM, TASKS_A_STREAM
from tests.support.budgets_course import Course, run_course
from tests.support.openai_endpoints import shipped_settings, spoken
from tests.support.openai_wire import STREAM_HEAD, framed
from tests.support.valkey import ValkeyServer

EVENTS = 400
DECODES_A_STREAM = 3
"""The request, the event that tells of the response, and the one that tells the usage."""


def test_an_event_costs_one_future_and_one_write(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A10: an event of the Responses API is one wait and one write, and none is decoded but the first and the last;
    text that may have to be counted is decoded one batch of 32 KB at a time.
    """  # noqa: D205
    told = spoken([" lantern"] * EVENTS)

    async def scenario(course: Course) -> None:
        course.meter.start()
        drive = course.drive
        drive.ask(course.request(path="/v1/responses", stream=True, max_output_tokens=900))
        await drive.asked()
        drive.reply(STREAM_HEAD, more=True)
        for event in told[:-1]:
            drive.reply(framed(event), more=True)
            await drive.answers(lambda got: got.endswith(b"\n\n\r\n"))
        drive.reply(framed(told[-1]) + framed(b""))
        await drive.answers(lambda got: got.endswith(b"0\r\n\r\n"))
        await course.settled()
        meter = course.meter

        assert meter.of("command") == {"EVALSHA": 2}
        assert meter.total("task") <= TASKS_A_STREAM, meter.of("task")
        assert meter.total("future") <= FUTURES_A_CHUNK * len(told) + FUTURES_A_STREAM, meter.of("future")
        assert meter.of("write").pop("client") <= len(told) + 2
        batches = sum(map(len, told)) // BATCH_BYTES
        assert meter.total("decode") <= batches + DECODES_A_STREAM, meter.of("decode")

    run_course(tmp_path, valkey, monkeypatch, scenario, shipped_settings())
