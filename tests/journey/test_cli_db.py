"""`tollway db` as an operator types it, on both databases."""

from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.ledger.schema import HEAD, migrations

SETTINGS = """
data_dir: {folder}
database: {{url: "{url}"}}
upstreams: {{one: {{url: sandbox}}}}
routes: [{{path: /*, upstream: one, dialect: plain}}]
tiers: {{free: {{}}}}
default_tier: free
"""


def test_the_ledger_goes_down_and_up(bare_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """E9, A7: one command migrates, one goes back, one says where the ledger stands."""
    file = tmp_path / "gateway.yaml"
    url = bare_url.replace("sqlite+aiosqlite", "sqlite")
    file.write_text(SETTINGS.format(folder=tmp_path / "data", url=url))

    def lines(*words: str) -> list[str]:
        assert main(("db", *words, "--file", str(file))) == 0
        return capsys.readouterr().out.splitlines()

    for _ in range(2):
        assert lines("upgrade") == [f"ledger {HEAD}, this program {HEAD}"]
        assert [line.split()[1] for line in lines("status")[1:-1]] == ["applied"] * len(migrations())
        assert lines("downgrade", "base", "--yes") == [f"ledger empty, this program {HEAD}"]
        assert [line.split()[1:3] for line in lines("status")[1:-1]] == [["to", "come"]] * len(migrations())
