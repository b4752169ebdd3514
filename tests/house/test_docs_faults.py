"""`docs/faults.md` and the code know the same faults, refusals and outcomes, in both directions."""

import re
from pathlib import Path
from typing import Any

import msgspec

from gateway.dialects.registry import DIALECTS
from gateway.domain import faults
from gateway.domain.decisions import Refused
from gateway.domain.faults import FaultKind
from gateway.domain.limits import Remedy
from gateway.domain.usage import Outcome
from tests.house.test_docs import ROOT

PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def refused(remedy: Remedy, wait_s: int | None = None) -> Refused:
    """A refusal by a limit on tokens."""
    return Refused(1_000, (0,), 0, "tokens/day", 100_000, 200_026, wait_s, remedy, 100_000)


def code_of(dialect: str, remedy: Remedy, wait_s: int | None) -> str:
    """The code that a caller reads: Gemini's is the `status`, Anthropic's the `type`."""
    body: dict[str, Any] = msgspec.json.decode(DIALECTS[dialect].refusal_body(refused(remedy, wait_s), "id"))
    error = body["error"]
    return str(error.get("status") or error.get("code") or error["type"])


def test_every_fault_is_told_and_none_is_made_up() -> None:
    """Whoever looks up a code finds it, with the status it really has; a code that is gone is gone from the page."""
    kinds = [kind for kind in vars(faults).values() if isinstance(kind, FaultKind)]
    told = [(int(row[0]), row[1].strip("`")) for row in rows("Faults")]

    assert sorted(told) == sorted((kind.status, kind.code) for kind in kinds)
    assert len({code for _, code in told}) == len(told)


def test_every_fault_says_what_to_check() -> None:
    """An operator at night needs the next step, not the code's name in other words."""
    assert [row for row in rows("Faults") if len(row) != 4 or len(row[2]) < 10 or len(row[3]) < 10] == []


def test_every_fault_is_raised_somewhere() -> None:
    """A fault that nothing raises would send operators after what can't happen."""
    names = [name for name, kind in vars(faults).items() if isinstance(kind, FaultKind)]
    sources = [path for path in (ROOT / "gateway").rglob("*.py") if path.name != "faults.py"]
    code = "\n".join(_without_imports(path) for path in sources)

    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []


def test_refusals_have_the_codes_that_dialects_send() -> None:
    """Apps tell "wait" from "pay" by these codes."""
    sent = {code_of(dialect, remedy, wait_s) for dialect in DIALECTS for remedy in Remedy for wait_s in (None, 9)}

    assert {row[0].strip("`") for row in rows("Refusals")} == sent


def test_every_outcome_is_told() -> None:
    """Bills, dashboards and logs are read by these words."""
    assert {row[0].strip("`") for row in rows("How a request can end")} == {*Outcome, "refused"}


def _without_imports(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^from [\w.]+ import (\([^)]*\)|.*)$", "", text, flags=re.MULTILINE)
