"""The log: one line per record on standard output, JSON for machines or columns for people.

Owns structlog's and the standard library's configuration, so that uvicorn's and every library's warnings come out the
same way. No prompt, answer, header or secret reaches a line (`redaction`). Logging never raises: a value that JSON
can't hold is shown by its repr, and a reader that is gone or too slow costs lines (`line_writer`), not requests.
"""

import atexit
import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Literal

import msgspec
import structlog

from gateway.telemetry.line_writer import LineWriter
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.redaction import FORBIDDEN_FIELDS, redact
from gateway.telemetry.request_line import request_line, show, shown

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
"""The log for everything but requests: `log.warning("flush_failed", rows=12)`. Events are words joined by `_`."""

writer = LineWriter()
"""Where every line goes. `writer.dropped` counts those that a slow or lost reader cost."""

Fields = MutableMapping[str, Any]


def configure(log_format: str, level: str) -> None:
    """Set the format (`json` or `console`) and the least level (`debug`, `info`, `warning`, `error`) of all logs.

    May be called again. A logger that was bound before (`log.bind()`) keeps the old configuration.
    """
    chain: list[structlog.typing.Processor] = [_json_line]
    if log_format == "console":
        chain = [_without_forbidden, _stamped, _console_renderer(), _as_bytes]
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
        logger_factory=_Lines,
        # Off, so that the module's `log` follows a later call; `Telemetry` binds its logger once, which is as fast.
        cache_logger_on_first_use=False,
    )
    _adopt_standard_library(level)


def request_writer(level: Literal["info", "warning"]) -> Callable[[RequestRecord, int], None]:
    """What writes the line of a request that ended at a Unix millisecond, as the last `configure` has it.

    Spends the record. As JSON past structlog, whose chain costs more than the line: there is one for each request.
    """
    bound = log.bind()
    if structlog.get_config()["processors"] != [_json_line]:
        return lambda record, _ended_ms: getattr(bound, level)("request", record=record)
    if not bound.is_enabled_for(getattr(logging, level.upper())):
        return lambda _record, _ended_ms: None
    after = f'","level":"{level}","event":"request",'.encode()

    def write(record: RequestRecord, ended_ms: int) -> None:
        writer.write(b'{"time":"%b%b%b\n' % (_stamp(ended_ms).encode(), after, request_line(record)[1:]))

    return write


def flush() -> None:
    """Write every held line now, waiting for the reader."""
    writer.flush(wait=True)


class _Lines:
    """The wrapped logger that structlog hands each rendered line to, by the level's name."""

    __slots__ = ()
    debug = info = warning = error = critical = staticmethod(writer.write)


class _StandardHandler(logging.Handler):
    """Passes a standard-library record on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        fields = {"exc_info": record.exc_info} if record.exc_info else {}
        log.log(_level(record.levelno), "library", logger=record.name, message=message, **fields)


def _adopt_standard_library(level: str) -> None:
    """Route the standard library's warnings and errors here; never less, as libraries show headers at `debug`."""
    root = logging.getLogger()
    root.handlers = [h for h in root.handlers if not isinstance(h, _StandardHandler)]
    root.addHandler(_StandardHandler())
    root.setLevel(logging.ERROR if level == "error" else logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True


def _level(number: int) -> int:
    """The nearest level at or below that structlog knows."""
    return max(10, min(50, number // 10 * 10))


def _json_line(logger: Any, level: str, event: Fields) -> bytes:
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, level, event)
    line = {"time": _now(), "level": level, "event": event.pop("event", "")}
    line.update(_without_forbidden(logger, level, event))
    return redact(_encode_any(line).decode()).encode() + b"\n"


def _encode_any(line: dict[str, Any]) -> bytes:
    try:
        return _encode(line)
    except (TypeError, ValueError, RecursionError):  # lone surrogates, keys that are no text, cycles
        return _encode({str(name): ascii(value) for name, value in line.items()})


_encode = msgspec.json.Encoder(enc_hook=repr).encode


def _without_forbidden(_logger: Any, _level: str, event: Fields) -> Fields:
    if not FORBIDDEN_FIELDS.isdisjoint(event):
        for name in FORBIDDEN_FIELDS & event.keys():
            event[name] = "***"
    return event


def _stamped(_logger: Any, level: str, event: Fields) -> Fields:
    record: RequestRecord | None = event.pop("record", None)
    if record is not None:
        show(record)
        event.update(shown(record))
    event["level"] = level
    event["timestamp"] = _now()
    event.pop("time", None)
    return event


def _as_bytes(_logger: Any, _level: str, line: Any) -> bytes:
    return redact(str(line)).encode(errors="backslashreplace") + b"\n"


def _console_renderer() -> structlog.dev.ConsoleRenderer:
    # The plain formatter: the others print local variables, and with them prompts and keys.
    return structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback)


class _Second:
    """The rendered start of the second last asked for: lines of one second share it."""

    number = 0
    text = ""


def _now() -> str:
    return _stamp(time.time_ns() // 1_000_000)


def _stamp(ms: int) -> str:
    """A Unix millisecond as RFC 3339 in UTC."""
    second = ms // 1000
    if second != _Second.number:
        _Second.text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _Second.number = second
    return f"{_Second.text}.{ms % 1000:03d}Z"


atexit.register(flush)
