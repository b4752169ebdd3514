"""Events and their sums in the ledger."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from gateway.domain.limits import Window
from gateway.domain.usage import CountedBy, Outcome
from gateway.domain.windows import bounds
from gateway.ledger.ledger import Ledger
from gateway.ledger.usage import DayUsage, HourUsage, Totals, unfit
from tests.support.ledgers import NOON_MS, an_event, rows_of, url_of

NOON_S = NOON_MS // 1000
ONE = Totals(events=1, requests=1, input_tokens=10, output_tokens=20, cached_tokens=3, reasoning_tokens=4)


async def test_an_event_comes_back_as_it_was(ledger: Ledger) -> None:
    """E6: what a bill rests on can be shown to whoever doubts it, every field of it."""
    event = an_event(
        "r-ü\N{GRINNING FACE}'\"",
        outcome=Outcome.CLIENT_GONE,
        counted_by=CountedBy.ESTIMATE,
        streamed=False,
        model="",
        input_tokens=2**48,
    )

    assert await ledger.take_events([event]) == 1
    assert await ledger.event(event.request_id) == event
    assert await ledger.event("other") is None


async def test_a_zero_character_neither_cuts_nor_blocks(ledger: Ledger, database: str) -> None:
    """A caller who names a model with a zero in it is billed like any other, under one name in event and sums; where
    the database has no place for a zero, under a sign for it.
    """  # noqa: D205
    stored = "a\0b" if database == "sqlite" else "a\N{SYMBOL FOR NULL}b"
    odd = an_event("r\0x", model="a\0b", endpoint=r"/\u0000")

    assert await ledger.take_events([odd, an_event("r2")]) == 2
    assert await ledger.take_events([odd]) == 0

    (hour, _) = await ledger.usage_by_hour("acme", NOON_S, NOON_S + 3600)
    assert (hour.endpoint, hour.model) == (r"/\u0000", stored)
    assert {event.model for event in await ledger.recent_events("acme", 9)} == {stored, "gpt-tiny"}
    assert (await ledger.event("r\0x")) is not None


async def test_events_count_once_whatever_is_taken_again(ledger: Ledger) -> None:
    """A8, B9: a batch that is taken again after a crash, or overlaps with another, bills nobody twice."""
    first, second, third = (an_event(f"r{number}") for number in (1, 2, 3))

    assert await ledger.take_events([first, second, first]) == 2
    assert await ledger.take_events([second, first]) == 0
    assert await ledger.take_events([second, third]) == 1
    assert await ledger.take_events([]) == 0

    expected = Totals(events=3, requests=3, input_tokens=30, output_tokens=60, cached_tokens=9, reasoning_tokens=12)
    assert await ledger.totals("acme", NOON_S, NOON_S + 3600) == expected
    assert await ledger.usage_by_day("acme", 0, 2**40) == [DayUsage(NOON_S - 43_200, expected)]


async def test_the_first_of_two_with_one_id_stands(ledger: Ledger) -> None:
    """An event is history: a later one of the same id never rewrites it."""
    await ledger.take_events([an_event(input_tokens=1), an_event(input_tokens=2)])
    await ledger.take_events([an_event(input_tokens=3)])

    stood = await ledger.event("r1")
    assert stood is not None
    assert stood.input_tokens == 1
    assert (await ledger.totals("acme", NOON_S, NOON_S + 3600)).input_tokens == 1


async def test_a_request_given_back_is_an_event_but_no_request(ledger: Ledger) -> None:
    """An upstream's failure stands in the history and takes nothing from the caller's limit."""
    await ledger.take_events([an_event(requests=0, input_tokens=0, output_tokens=0, outcome=Outcome.UPSTREAM_ERROR)])

    totals = await ledger.totals("acme", NOON_S, NOON_S + 3600)
    assert (totals.events, totals.requests, totals.tokens) == (1, 0, 0)


async def test_an_event_belongs_to_the_window_of_its_admission(ledger: Ledger) -> None:
    """A stream that runs over midnight counts for the day on which it was let in, like its hold did."""
    last_ms = NOON_MS + 43_200_000 - 1
    await ledger.take_events([an_event(admitted_ms=last_ms, settled_ms=last_ms + 60_000)])
    midnight_s = NOON_S + 43_200

    assert await ledger.totals("acme", midnight_s - 86_400, midnight_s) == ONE
    assert await ledger.totals("acme", midnight_s, midnight_s + 86_400) == Totals()
    assert await ledger.totals("acme", midnight_s - 1, midnight_s) == ONE


async def test_a_day_that_begins_at_half_past_is_exact_at_both_ends(ledger: Ledger) -> None:
    """C1: a customer in India has days from 18:30 to 18:30 UTC; the half hours at their ends count, to the last ms."""
    start_s, end_s = bounds(Window.DAY, NOON_S, ZoneInfo("Asia/Kolkata"))
    assert (start_s % 3600, end_s % 3600) == (1800, 1800)
    edges = (start_s * 1000 - 1, start_s * 1000, end_s * 1000 - 1, end_s * 1000)
    await ledger.take_events([an_event(f"r{ms}", admitted_ms=ms) for ms in (*edges, NOON_MS)])

    assert (await ledger.totals("acme", start_s, end_s)).events == 3


async def test_hours_tell_endpoints_and_models_apart(ledger: Ledger) -> None:
    """D4: the hourly record names endpoint and model, and an account sees none but its own."""
    await ledger.take_events(
        [
            an_event("r1"),
            an_event("r2", model="gpt-large"),
            an_event("r3", endpoint="/v1/embeddings"),
            an_event("r4", admitted_ms=NOON_MS + 3_600_000),
            an_event("r5", account_id="other"),
        ]
    )

    assert await ledger.usage_by_hour("acme", NOON_S, NOON_S + 3600) == [
        HourUsage(NOON_S, "/v1/chat/completions", "gpt-large", ONE),
        HourUsage(NOON_S, "/v1/chat/completions", "gpt-tiny", ONE),
        HourUsage(NOON_S, "/v1/embeddings", "gpt-tiny", ONE),
    ]
    assert len(await ledger.usage_by_hour("acme", NOON_S, NOON_S + 7200)) == 4


async def test_latest_events_come_first(ledger: Ledger) -> None:
    """C4, D9: support looks at the last requests of one account, never at another's."""
    await ledger.take_events([an_event(f"r{number}", admitted_ms=NOON_MS + number) for number in range(5)])
    await ledger.take_events([an_event("x", account_id="other", admitted_ms=NOON_MS + 99)])

    assert [event.request_id for event in await ledger.recent_events("acme", 3)] == ["r4", "r3", "r2"]


async def test_usage_of_an_account_that_is_gone_is_kept(ledger: Ledger) -> None:
    """Usage that happened is written down whatever became of its account; a refused row would block the flusher."""
    assert await ledger.take_events([an_event(account_id="never-made")]) == 1


async def test_what_is_set_aside_is_kept_whole_and_once(ledger: Ledger, ledger_url: str) -> None:
    """An entry that can't be read may be someone's usage: it stays for repair, and a replay doesn't double it."""
    await ledger.set_aside([(b"\xc1\x00", "not MessagePack"), (b"", "empty")], 5)
    await ledger.set_aside([(b"\xc1\x00", "not MessagePack")], 6)

    assert await ledger.set_aside_count() == 2
    rows = rows_of(ledger_url, "SELECT payload, reason, set_aside_ms FROM set_aside ORDER BY reason")
    assert rows == [(b"", "empty", 5), (b"\xc1\x00", "not MessagePack", 5)]


@pytest.mark.parametrize(
    "fields",
    [
        {"admitted_ms": -1},
        {"settled_ms": 253_402_300_800_000},
        {"input_tokens": 2**48 + 1},
        {"output_tokens": -(2**48) - 1},
        {"response_bytes": 2**64 - 1},
    ],
)
def test_an_event_beyond_the_ledgers_integers_is_told(fields: dict[str, Any]) -> None:
    """One event of absurd size would turn sums into floats or block every event behind it."""
    assert unfit(an_event(**fields)) is not None


def test_the_largest_event_fits() -> None:
    """No honest event is set aside, corrections with negative counts included."""
    assert unfit(an_event(input_tokens=2**48, output_tokens=-(2**48), admitted_ms=253_402_300_799_999)) is None


async def test_a_commit_is_on_disk_when_it_returns(ledger_path: Path) -> None:
    """The flusher deletes what was committed: with less than FULL, a power cut would lose usage without a trace."""
    ledger = Ledger.open(url_of(ledger_path))
    async with ledger.writing() as connection:
        assert await connection.scalar(text("PRAGMA synchronous")) == 2
        assert await connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 1
    await ledger.close()


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21])
async def test_a_batch_that_is_cancelled_is_taken_whole_or_not_at_all(
    ledger: Ledger, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stops in the middle of a flush must leave sums that equal the events."""
    monkeypatch.setattr("gateway.ledger.database.CLOSE_S", 30)  # a slow disk is not what is tried here
    batch = [an_event(f"r{number}") for number in range(50)]
    taking = asyncio.create_task(ledger.take_events(batch))
    for _ in range(turns):
        await asyncio.sleep(0)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    assert (await ledger.totals("acme", NOON_S, NOON_S + 3600)).events in {0, 50}

    await ledger.close()
    assert (await ledger.totals("acme", NOON_S, NOON_S + 3600)).events == (50 if turns else 0), "close waits for it"
    assert await ledger.take_events([*batch, an_event("one more")]) in {1, 51}
    assert (await ledger.totals("acme", NOON_S, NOON_S + 3600)).events == 51


async def test_a_locked_file_holds_up_no_stop(ledger_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is stopped while another process writes lets go of the file: a connection whose closing was broken
    off would keep its loop from ever ending.
    """  # noqa: D205
    monkeypatch.setattr("gateway.ledger.database.CLOSE_S", 0.05)
    ledger = Ledger.open(url_of(ledger_path))
    with closing(sqlite3.connect(ledger_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        taking = asyncio.create_task(ledger.take_events([an_event()]))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(1, other.execute, "ROLLBACK")

        await ledger.close()

    assert taking.done()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert (await ledger.totals("acme", NOON_S, NOON_S + 3600)).events in {0, 1}
    await ledger.close()


async def test_two_flushers_at_once_count_each_event_once(ledger: Ledger, ledger_url: str) -> None:
    """A lease that lapsed under a slow flusher puts two on one ledger: safe, merely in each other's way."""
    other = Ledger.open(ledger_url)
    batches = [[an_event(f"r{number}") for number in range(start, start + 40)] for start in range(0, 200, 20)]

    taken = await asyncio.gather(*[one.take_events(batch) for batch in batches for one in (ledger, other)])
    await other.close()

    assert sum(taken) == 220
    assert (await ledger.totals("acme", NOON_S, NOON_S + 3600)).events == 220
