"""Sums in the ledger equal the events, for every window, zone and order of arrival."""

import asyncio
from collections.abc import Awaitable, Callable
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from gateway.domain.limits import Window
from gateway.domain.usage import UsageEvent
from gateway.domain.windows import bounds
from gateway.ledger.ledger import Ledger
from gateway.ledger.tables import metadata
from gateway.ledger.usage import Totals
from tests.support.ledgers import NOON_MS, an_event, without_fsync

SPAN_MS = 3 * 86_400_000
ZONES = ("UTC", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/New_York")

moments = st.one_of(
    st.integers(NOON_MS - SPAN_MS, NOON_MS + SPAN_MS),
    # Edges of hours, and of the quarters at which some zones' days begin, close to each other and to midnight.
    st.builds(lambda quarter, off: NOON_MS + quarter * 900_000 + off, st.integers(20, 32), st.integers(-1, 1)),
)
events = st.builds(
    lambda number, moment_ms, model, tokens: an_event(
        f"r{number}", admitted_ms=moment_ms, model=model, input_tokens=tokens
    ),
    st.integers(0, 30),
    moments,
    st.sampled_from(["a", "b"]),
    st.integers(-(2**48), 2**48),
)


def _admitted_once(taken: list[list[UsageEvent]]) -> list[list[UsageEvent]]:
    """The batches, each request id with the time at which it was first admitted, give or take what clocks differ."""
    first: dict[str, int] = {}
    return [
        [
            msgspec.structs.replace(
                event, admitted_ms=first.setdefault(event.request_id, event.admitted_ms) + event.admitted_ms % 7
            )
            for event in batch
        ]
        for batch in taken
    ]


batches = st.lists(st.lists(events, max_size=12), max_size=6).map(_admitted_once)


bounded = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def on_a_ledger(ledger_url: str) -> Callable[[Callable[[Ledger], Awaitable[None]]], None]:
    """Run a coroutine on an empty ledger."""

    async def run(check: Callable[[Ledger], Awaitable[None]]) -> None:
        ledger = without_fsync(Ledger.open(ledger_url))
        try:
            async with ledger.writing() as connection:
                for table in metadata.sorted_tables[::-1]:
                    await connection.execute(delete(table))
            await check(ledger)
        finally:
            await ledger.close()

    return lambda check: asyncio.run(run(check))


def _sum(taken: dict[str, UsageEvent], start_s: int, end_s: int) -> Totals:
    within = [event for event in taken.values() if start_s * 1000 <= event.admitted_ms < end_s * 1000]
    return Totals(
        events=len(within),
        requests=sum(event.requests for event in within),
        input_tokens=sum(event.input_tokens for event in within),
        output_tokens=sum(event.output_tokens for event in within),
        cached_tokens=sum(event.cached_tokens for event in within),
        reasoning_tokens=sum(event.reasoning_tokens for event in within),
    )


@given(taken=batches, moment_ms=moments, zone=st.sampled_from(ZONES))
@bounded
def test_every_window_of_every_zone_adds_up(
    on_a_ledger: Callable[[Callable[[Ledger], Awaitable[None]]], None],
    taken: list[list[UsageEvent]],
    moment_ms: int,
    zone: str,
) -> None:
    """B9: a counter rebuilt from the ledger is the true one, where days begin at half past, too; else a limit moves."""

    async def check(ledger: Ledger) -> None:
        expected: dict[str, UsageEvent] = {}
        for batch in taken:
            fresh = {event.request_id: event for event in reversed(batch)}
            new = fresh.keys() - expected.keys()
            assert await ledger.take_events(batch) == len(new)
            expected |= {name: fresh[name] for name in new}
        for window in Window:
            start_s, end_s = bounds(window, moment_ms // 1000, ZoneInfo(zone))
            assert await ledger.totals("acme", start_s, end_s) == _sum(expected, start_s, end_s)
        for day in await ledger.usage_by_day("acme", 0, 2**40):
            assert day.totals == _sum(expected, day.day_s, day.day_s + 86_400)

    on_a_ledger(check)
