"""`tollway db set-aside` as an operator types it: what an older gateway could not read is told, and counted once."""

import asyncio
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.ledger.ledger import Ledger
from tests.support.ledgers import NOON_MS, an_event, packed
from tests.support.valkey import ValkeyServer

NOON_S = NOON_MS // 1000
SETTINGS = """
data_dir: {data}
redis: {{ url: "{redis}", namespace: tw, timeout_ms: 10000 }}
database: {{ url: "{database}" }}
upstreams: {{ one: {{ url: "http://127.0.0.1:9000" }} }}
routes: [{{ path: /v1/*, upstream: one, dialect: plain }}]
tiers: {{ free: {{ concurrency: 1 }} }}
default_tier: free
"""


async def test_what_was_set_aside_is_counted_once_by_a_gateway_that_can_read_it(
    ledger: Ledger, ledger_url: str, valkey: ValkeyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rolling upgrade may put a newer gateway's events before an older flusher, which sets them aside: after the
    upgrade they are billed, once, however often that is asked for, and what nobody can read is still there.
    """  # noqa: D205
    file = tmp_path / "gateway.yaml"
    database = ledger_url.replace("+aiosqlite", "")
    file.write_text(SETTINGS.format(data=tmp_path / "data", redis=valkey.url, database=database))
    await ledger.take_events([an_event("r1")])
    entries = [packed(an_event("r1")), packed(an_event("r2")), packed(an_event("r3")), b"\xc1"]
    await ledger.set_aside([(entry, "not known to an older gateway") for entry in entries], NOON_MS)

    async def run(*words: str) -> str:
        capsys.readouterr()
        assert await asyncio.to_thread(main, ("db", "set-aside", *words, "--file", str(file))) == 0
        return capsys.readouterr().out

    assert (await run()).count("not known to an older gateway") == 4
    told = await run("--replay")
    assert "replayed: 2 new events" in told
    assert told.count("not known") == 1
    assert "replayed: 0 new events" in await run("--replay")

    assert (await ledger.totals("acme", NOON_S, NOON_S + 3600)).events == 3
    assert await ledger.set_aside_count() == 1
    audit = await ledger.audit_log("acme")
    assert [row.action for row in audit] == ["usage.replayed"] * 3
