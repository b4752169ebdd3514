"""docs/admin.md tells of every admin endpoint and of every column of an import, and of no other."""

import re

from gateway.cli.import_columns import COLUMNS
from gateway.console.admin_endpoints import ENDPOINTS
from tests.house.test_docs import ROOT

PAGE = (ROOT / "docs" / "admin.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([A-Z]+) (/\S+)` \| (.+) \|$", re.MULTILINE)


def test_the_table_of_endpoints_is_the_codes_own() -> None:
    """F7: whoever writes a script from the page finds each endpoint as it is served."""
    assert ROW.findall(PAGE) == [(one.method, one.path, one.does) for one in ENDPOINTS]


def test_the_table_of_columns_is_the_codes_own() -> None:
    """A2: whoever prepares an export finds the names that are taken, the old ones among them."""
    table = PAGE.partition("| column |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .+ \|$", table, re.MULTILINE)
    told = {name: tuple(re.findall(r"`(.+?)`", aliases)) for name, aliases in rows}

    assert told == COLUMNS
