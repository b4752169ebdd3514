"""The matrix: every dialect, every way its answers can end, every policy of a tier (rows B2, B5, F5)."""

from pathlib import Path
from typing import Any

import pytest

from gateway.dialects.openai_usage import usage_of
from tests.support.matrix.columns import COLUMNS
from tests.support.matrix.matrix import cells_of, complaints
from tests.support.valkey import ValkeyServer


@pytest.mark.parametrize("column", COLUMNS)
async def test_the_ledger_is_the_upstreams_own_count(tmp_path: Path, valkey: ValkeyServer, column: str) -> None:
    """B2, B5, F5: whatever becomes of an answer, the bill is what docs/dialects.md says, the client's own parser takes
    a stopped stream for a full one and a broken one for an error, and nothing stays held. Everyone who pays by token,
    or is billed for others' tokens, is hurt by any one cell.
    """  # noqa: D205
    wrong = await complaints(tmp_path, valkey, cells_of(column))
    assert not wrong, "\n".join(wrong)


async def test_the_matrix_can_fail(tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is off by one token is seen in every cell whose usage it reads, and in no other."""

    def off_by_one(report: Any) -> Any:
        usage = usage_of(report)
        return usage if usage is None else usage.plus(type(usage)(0, 1))

    monkeypatch.setattr("gateway.dialects.openai_stream.usage_of", off_by_one)
    rows = ("whole", "stream", "cut between events")
    wrong = await complaints(tmp_path, valkey, cells_of("chat", rows))
    assert len(wrong) == 4
    assert all(one.startswith("chat_stream_") and "the ledger's" in one for one in wrong)
