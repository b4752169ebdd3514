"""docs/plans.md says what a subscription's status gives; operators decide by it whether to change the settings."""

import re
from pathlib import Path

from gateway.domain.subscriptions import DEFAULT_ACCESS

PAGE = Path(__file__).parents[2] / "docs" / "plans.md"
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \|", re.MULTILINE)


def test_the_table_of_statuses_is_the_codes_own() -> None:
    """E2: each status of both vocabularies is there once, with what it gives by default."""
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))

    assert rows == [(status.value, access.value) for status, access in DEFAULT_ACCESS.items()]
