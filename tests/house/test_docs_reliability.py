"""docs/reliability.md lists the steps at which a kill is tested; operators judge by it what a crash can cost them."""

import re
from pathlib import Path

from tests.support.crash_points import POINTS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
ROW = re.compile(r"^\| ([a-z][a-z, -]+) \| ([^|]+) \| (\w+) `([^`]+)` \| ([^|]+) \|$", re.MULTILINE)


def test_the_list_of_crash_points_is_the_one_that_is_tested() -> None:
    """A8: each step is there once, in order, with its call and what it costs."""
    text = PAGE.read_text(encoding="utf-8")

    assert ROW.findall(text[text.index("| step | while |") :]) == [
        (
            point.name,
            point.scene.value,
            point.at.value,
            point.call.replace("{store}.", "").rpartition(":")[2],
            "nothing" if point.sure else "what was not told yet",
        )
        for point in POINTS
    ]
