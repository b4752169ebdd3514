"""The log: one JSON line per event, whole, in order, without secrets, whatever is logged and whoever logs it."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.identity.keys import new_key
from gateway.telemetry.log import configure, flush, log
from gateway.telemetry.metrics import Metrics, Telemetry
from gateway.telemetry.record import RequestRecord

PROMPT = "my deepest wish is a pony"
KEY = new_key(b"k" * 32)[1]


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """Leave structlog and the root logger as they were: other tests share the process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    flush()
    yield
    flush()
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def _lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    flush()
    return [json.loads(line) for line in capfd.readouterr().out.split("\n")[:-1]]


def test_an_event_is_one_line_of_json(capfd: pytest.CaptureFixture[str]) -> None:
    """F8: a log shipper takes each line alone; time, level and event stand in every one, first."""
    configure("json", "info")
    log.warning("flush_failed", rows=12, text_with="two\nlines")

    [line] = _lines(capfd)
    assert list(line) == ["time", "level", "event", "rows", "text_with"]
    assert (line["level"], line["event"], line["rows"]) == ("warning", "flush_failed", 12)
    assert len(line["time"]) == len("2026-11-21T12:00:00.000Z")


def test_levels_below_the_least_are_silent(capfd: pytest.CaptureFixture[str]) -> None:
    """F8: `log.level: error` means what it says, for a log that was taken before the configuration too."""
    configure("json", "error")
    log.warning("unheard")
    logging.getLogger("library").warning("unheard")
    log.error("heard")

    assert [line["event"] for line in _lines(capfd)] == ["heard"]


def test_a_request_is_one_line_from_its_record(capfd: pytest.CaptureFixture[str]) -> None:
    """F8: exactly one line per request, `warning` where it failed on our side, so that alerts can count them."""
    configure("json", "info")
    telemetry = Telemetry(Metrics(), log_requests=True)
    telemetry.finish(RequestRecord(request_id="r1", status=200))
    telemetry.finish(RequestRecord(request_id="r2", status=502, fault="upstream_broken", detail="cut at 12 bytes"))
    telemetry.finish(RequestRecord(request_id="r3", status=429, limit="tokens/day"))

    good, bad, refused = _lines(capfd)
    assert [line["outcome"] for line in (good, bad, refused)] == ["ok", "fault", "refused"]
    assert (good["level"], good["event"], good["request_id"]) == ("info", "request", "r1")
    assert (bad["level"], bad["fault"], bad["detail"]) == ("warning", "upstream_broken", "cut at 12 bytes")
    assert good["time"].endswith("Z")


def test_request_lines_obey_the_least_level(capfd: pytest.CaptureFixture[str]) -> None:
    """F8: `log.level: warning` leaves the requests that failed on our side, `error` none."""
    for level, heard in (("warning", ["r2"]), ("error", [])):
        configure("json", level)
        telemetry = Telemetry(Metrics(), log_requests=True)
        telemetry.finish(RequestRecord(request_id="r1", status=200))
        telemetry.finish(RequestRecord(request_id="r2", status=502))

        assert [line["request_id"] for line in _lines(capfd)] == heard


def test_request_lines_can_be_turned_off_but_not_failures(capfd: pytest.CaptureFixture[str]) -> None:
    """F8: `log.requests: false` saves the lines of what went well; a failure still leaves its trace, and all count."""
    configure("json", "info")
    metrics = Metrics()
    telemetry = Telemetry(metrics, log_requests=False)
    telemetry.finish(RequestRecord(request_id="r1", status=200))
    telemetry.finish(RequestRecord(request_id="r2", status=500))

    assert [line["request_id"] for line in _lines(capfd)] == ["r2"]
    assert sum(metrics.snapshot().counters["tollway_requests_total"].values()) == 2


async def test_a_request_is_told_soon_and_when_it_ended(capfd: pytest.CaptureFixture[str]) -> None:
    """F8: lines are made a few at a time; the last one before a quiet hour comes now, with the time of its end."""
    configure("json", "info")
    telemetry = Telemetry(Metrics(), log_requests=True)
    before_s = time.time()
    record = RequestRecord(request_id="r1", status=200, ended_s=time.perf_counter() - 60)
    after_s = time.time()
    telemetry.finish(record)
    out = ""
    async with asyncio.timeout(20):
        while "r1" not in out:
            await asyncio.sleep(0.01)
            out += capfd.readouterr().out

    ended_s = datetime.fromisoformat(json.loads(out)["time"]).timestamp()
    assert before_s - 61 <= ended_s <= after_s - 59


async def test_many_requests_are_each_told_once_in_turn(capfd: pytest.CaptureFixture[str]) -> None:
    """F8: however many end between two writes, each has its line and its count."""
    configure("json", "info")
    metrics = Metrics()
    telemetry = Telemetry(metrics, log_requests=True)
    for number in range(150):
        telemetry.finish(RequestRecord(request_id=f"r{number}", status=200))

    assert sum(metrics.snapshot().counters["tollway_requests_total"].values()) == 150
    assert [line["request_id"] for line in _lines(capfd)] == [f"r{number}" for number in range(150)]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_key_and_no_prompt_reaches_a_line(capfd: pytest.CaptureFixture[str], log_format: str) -> None:
    """F8: not by a request's record, a field, a library's message, nor a traceback. A leak here is every account's."""
    configure(log_format, "debug")
    Telemetry(Metrics(), log_requests=True).finish(
        RequestRecord(
            path=f"/v1/{KEY}?q={PROMPT}", model=KEY, fault="internal_error", detail=f"bad header: Bearer {KEY}"
        )
    )
    log.error("odd", authorization=f"Bearer {KEY}", prompt=PROMPT, messages=[PROMPT], body=PROMPT, headers={"a": KEY})
    log.error("odd", note=f"key {KEY}", deep={"list": [f"x={KEY}"]})
    logging.getLogger("library").error("sent %s", KEY)
    _fail_with_locals(PROMPT)

    flush()
    out = capfd.readouterr().out
    assert KEY.rsplit("_", 1)[1] not in out
    assert PROMPT not in out
    assert "ValueError" in out


def _fail_with_locals(prompt: str) -> None:
    try:
        int(f"{len(prompt)} characters, {KEY}")
    except ValueError:
        log.exception("failed")


def test_a_traceback_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """F8: a stack that is torn over many lines can't be found by its request."""
    configure("json", "info")
    try:
        _ = 1 // 0
    except ZeroDivisionError as error:
        log.error("failed", exc_info=error)

    [line] = _lines(capfd)
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ZeroDivisionError: integer division or modulo by zero")


def test_libraries_speak_through_the_same_log(capfd: pytest.CaptureFixture[str]) -> None:
    """F8: uvicorn's and asyncio's warnings come as lines like all others, their chatter not at all."""
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler())
    configure("json", "debug")
    configure("json", "debug")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.access").error("GET /")
    logging.getLogger("uvicorn.error").error("bad %s", "thing")
    malformed = {"name": "asyncio", "levelno": 30, "msg": "too few arguments: %s %s", "args": ("one",)}
    logging.getLogger().handlers[-1].handle(logging.makeLogRecord(malformed))

    first, second = _lines(capfd)
    assert (first["event"], first["logger"], first["message"]) == ("library", "uvicorn.error", "bad thing")
    assert (second["logger"], second["message"]) == ("asyncio", "too few arguments: %s %s")


def test_console_lines_are_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    """F8: `log.format: console` shows the event and its fields in columns, not JSON."""
    configure("console", "info")
    Telemetry(Metrics(), log_requests=True).finish(RequestRecord(request_id="r1", status=200))
    log.info("ready", url="http://127.0.0.1:8080")

    flush()
    request, ready = capfd.readouterr().out.splitlines()
    assert "request" in request
    assert "status=200" in request
    assert "url=http://127.0.0.1:8080" in ready


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(st.text(), st.binary(), st.floats(), st.integers(), st.none(), st.builds(object), st.sets(st.text())),
        max_size=4,
    )
)
def test_anything_can_be_logged(capfd: pytest.CaptureFixture[str], fields: dict[str, Any]) -> None:
    """F8: a value of any kind (lone surrogates, huge integers, objects) gives one line and never fails a request."""
    configure("json", "info")
    log.info("odd", **{f"f_{name}": value for name, value in fields.items()})

    assert len(_lines(capfd)) == 1


async def test_a_line_is_out_soon_without_a_flush(capfd: pytest.CaptureFixture[str]) -> None:
    """F8: who tails the log sees a request within a moment, however quiet the gateway is."""
    configure("json", "info")
    log.info("first")
    assert capfd.readouterr().out == ""
    out = ""
    async with asyncio.timeout(20):
        while "first" not in out:
            await asyncio.sleep(0.01)
            out += capfd.readouterr().out
    assert json.loads(out)["event"] == "first"
