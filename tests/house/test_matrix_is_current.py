"""The matrix in docs/dialects.md is the one that the gateway is tested by."""

from tests.support.matrix.columns import COLUMNS as PLAYED
from tests.support.matrix.expectations import COLUMNS
from tests.support.matrix.table import PAGE, put_into


def test_the_table_is_current() -> None:
    """Guarantee: who reads what a broken answer costs reads what is tested."""
    page = PAGE.read_text(encoding="utf-8")

    assert page == put_into(page), "docs/dialects.md is out of date: run `python -m tests.support.matrix.table`"


def test_every_column_is_played() -> None:
    """Guarantee: no column of the table stands there untested."""
    assert list(PLAYED) == list(COLUMNS)
