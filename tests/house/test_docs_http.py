"""`docs/http.md` lists the cases that tests try, and no others, with the answers that they expect."""

import re

from tests.contract.test_http_protocol_requests import BAD
from tests.fault.test_odd_peers import BROKEN
from tests.fault.test_odd_upstreams import ODD
from tests.house.test_docs import ROOT

PAGE = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")


def rows(head: str) -> list[list[str]]:
    """The cells of the table that begins with the line `head`."""
    table = PAGE.partition(f"{head}\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def test_every_case_that_is_no_request_is_told() -> None:
    """F1: "each has a test and a stated answer": who audits the gateway for smuggling reads this table."""
    assert rows("| sent | answer |") == [[case, "400 `bad_request`"] for case in BAD]


def test_every_case_that_is_no_answer_is_told() -> None:
    """F1: the same, of upstreams."""
    assert rows("| the upstream | answer |") == [[case, "502 `upstream_broken`"] for case in BROKEN]


def test_every_odd_answer_is_told() -> None:
    """F5: what the caller gets of an upstream that is odd at the edges."""
    head = "| the upstream, seen by the caller | the caller gets |"
    assert rows(head) == [[case, odd.answer] for case, odd in ODD.items()]


def test_every_test_that_is_named_is_there() -> None:
    """A row whose test is gone is a promise that nobody keeps."""
    named = [row[2] for head in ("| sent | answer | test |", "| sent | what happens | test |") for row in rows(head)]
    there = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))

    assert len(named) == 22
    assert [name for name in named if not re.search(rf"def {name.strip('`')}\(", there)] == []
