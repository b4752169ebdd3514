"""`docs/operations.md` tells the metrics, variables, log events and log fields that there are, and no others."""

import json
import logging
import re
from collections.abc import Iterator

import pytest
import structlog

from gateway.settings.environment import variables
from gateway.telemetry import catalogue
from gateway.telemetry.log import configure, flush
from gateway.telemetry.metrics import Metrics, Telemetry
from gateway.telemetry.record import RequestRecord
from tests.house.test_docs import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SOURCES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "gateway").rglob("*.py")}
FAMILIES = {
    name: family
    for name, family in vars(catalogue).items()
    if isinstance(family, catalogue.Counter | catalogue.Histogram | catalogue.Gauge)
}


@pytest.fixture
def log_as_before() -> Iterator[None]:
    """Leave structlog and the root logger as they were: other tests share the process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    flush()
    yield
    flush()
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def rows(head: str) -> list[list[str]]:
    """The cells of the table that begins with the line `head`."""
    table = PAGE.partition(f"{head}\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def metric_rows() -> dict[str, list[str]]:
    """Kind, labels and text by the metric's name."""
    return {row[0].strip("`"): row[1:] for row in rows("| metric | kind | labels | tells |")}


def test_every_metric_is_told_with_its_kind_and_labels() -> None:
    """Dashboards and alerts are built from this table (F8)."""
    told = {name: (row[0], tuple(filter(None, row[1].split(", ")))) for name, row in metric_rows().items()}

    assert told == {
        family.name: (type(family).__name__.lower(), getattr(family, "labels", ())) for family in FAMILIES.values()
    }


def test_metrics_that_nothing_feeds_are_said_to_be_so() -> None:
    """An alert on a metric that never moves is worse than none. Whoever feeds one takes the note away."""
    used = "\n".join(text for path, text in SOURCES.items() if path.name != "catalogue.py")
    unfed = {family.name for name, family in FAMILIES.items() if f"catalogue.{name}" not in used}

    assert {name for name, row in metric_rows().items() if row[2] == "not fed yet"} == unfed


def test_every_variable_is_told() -> None:
    """What the shipped file and the program take from the environment, an operator can look up."""
    read = re.compile(r"environ(?:\.get)?[(\[]\"(TOLLWAY_\w+)\"")
    shipped = re.sub(r"#.*", "", (ROOT / "gateway.yaml").read_text(encoding="utf-8"))
    asked = set(variables(shipped))
    asked |= {name for text in SOURCES.values() for name in read.findall(text)}

    assert {row[0].strip("`") for row in rows("| variable | sets | unset |")} == asked


def test_every_log_event_is_told_with_its_level() -> None:
    """The word in a log line at night leads to what to do; an event that is gone is gone from the page."""
    written = re.compile(r"\blog\.(debug|info|warning|error)\(\s*\"(\w+)\"")
    told = {row[0].strip("`"): row[1] for row in rows("| event | level | what to do |")}
    logged = {event: level for text in SOURCES.values() for level, event in written.findall(text)}

    assert told == logged | {"library": "as told"}


@pytest.mark.usefixtures("log_as_before")
def test_every_field_of_a_request_line_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """Log pipelines are built from these names (F8)."""
    record = RequestRecord()
    for name, kind in RequestRecord.__annotations__.items():
        setattr(record, name, kind("1"))
    # Apart, so that no span of time is 0, which would be left out.
    record.reserved_s, record.forwarded_s, record.first_byte_s, record.ended_s = 2.0, 3.0, 4.0, 5.0
    configure("json", "info")
    Telemetry(Metrics(), log_requests=True).finish(record)
    flush()
    line = json.loads(capfd.readouterr().out)
    told = [name for row in rows("| fields | what |") for name in re.findall(r"`(\w+)`", row[0])]

    assert sorted(told) == sorted(line)
