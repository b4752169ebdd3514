"""`tollway serve` on PostgreSQL, as production runs it: several workers, a ledger that is made at the first start."""

from collections.abc import Callable
from pathlib import Path

from tests.support.ledgers import rows_of
from tests.support.serving import Serving, until


def test_a_newcomers_request_reaches_the_ledger(tmp_path: Path, new_postgres: Callable[[str], str]) -> None:
    """C4, E9: with nothing but an address, a start makes the tables and partitions, and a request that any worker
    answered is an event in them.
    """  # noqa: D205
    url = new_postgres("template0")
    serving = Serving(tmp_path, "--workers", "2")
    file = tmp_path / "gateway.yaml"
    file.write_text(file.read_text() + f'database: {{ url: "{url}" }}\n')

    with serving:
        assert [serving.get("/v1/models", serving.key) for _ in range(5)] == [200] * 5
        until(lambda: rows_of(url, "SELECT count(*) FROM events") == [(5,)])
        assert serving.stop() == 0

    assert rows_of(url, "SELECT count(*) FROM events_default") == [(0,)]
    assert rows_of(url, "SELECT sum(events) FROM usage_hourly") == [(5,)]
    assert not (tmp_path / "data" / "ledger.db").exists()
