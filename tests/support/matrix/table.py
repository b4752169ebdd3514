"""The matrix as the table in docs/dialects.md, between its two marks.

`python -m tests.support.matrix.table` writes it, from what `tests/fault/test_matrix.py` holds the gateway to.
"""

from pathlib import Path

from tests.support.matrix.endings import ENDINGS
from tests.support.matrix.expectations import COLUMNS, EXPECTED, Is

PAGE = Path(__file__).parents[3] / "docs" / "dialects.md"
BEGIN, END = "<!-- the matrix: begin -->\n", "<!-- the matrix: end -->\n"


def rendered() -> str:
    """The table in Markdown."""
    lines = [["ending", *COLUMNS], ["---"] * (1 + len(COLUMNS))]
    lines += [[_title(row), *(_text(column, row) for column in COLUMNS)] for row in ENDINGS]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def put_into(page: str) -> str:
    """The page with the table as it is now. Raises ValueError where its marks are gone."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} lacks {BEGIN.strip()} or {END.strip()}")
    return head + begin + rendered() + end + tail


def _title(row: str) -> str:
    ending = ENDINGS[row]
    return f"{row}: {'stop / finish' if ending.scant else 'cancel / drain'}" if ending.scant or ending.leaves else row


def _text(column: str, row: str) -> str:
    cell = EXPECTED[column][row]
    return cell.value if isinstance(cell, Is) else " / ".join(one.value for one in cell)


if __name__ == "__main__":
    PAGE.write_text(put_into(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
