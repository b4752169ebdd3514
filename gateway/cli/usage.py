"""Show what an account used: each limit of its tier, then today and this month.

USED counts what is settled and what running requests hold, where Redis answers; else what the ledger holds.
"""

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime

import msgspec

from gateway.cli.connections import Connections, Live, connected
from gateway.cli.table import table
from gateway.cli.verbs import add_file
from gateway.domain.faults import Fault
from gateway.domain.limits import Limit, Tier, Window
from gateway.domain.usage import Usage, UsageEvent, amount
from gateway.domain.windows import bounds, span
from gateway.ledger.usage import HOUR_S, HourUsage, Totals
from gateway.quota.resp import RedisError

FLUSH_PATIENCE_S = 3.0
_POLL_S = 0.02
_COLUMNS = ("REQUESTS", "INPUT", "OUTPUT", "CACHED", "REASONING", "TOTAL")


class LimitState(msgspec.Struct, frozen=True):
    """How one limit stands. `settled` is the ledger's count; `used` adds what running requests hold."""

    limit: str
    used: int
    settled: int
    maximum: int
    percent: float
    resets_s: int


class PeriodTotals(msgspec.Struct, frozen=True):
    """The ledger's sums of the running day or month."""

    requests: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    tokens: int


class Report(msgspec.Struct, frozen=True):
    """What `--json` prints. `backlog` is how many events of any account the ledger lacks yet; None is not known.

    `running` is how many requests are under way, None where Redis doesn't answer.
    """

    account: str
    tier: str
    suspended: bool
    time_zone: str
    limits: list[LimitState]
    today: PeriodTotals
    this_month: PeriodTotals
    concurrency: int | None
    running: int | None
    backlog: int | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose usage, and how to show it."""
    add_file(parser)
    parser.add_argument("account", metavar="ACCOUNT")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--events", type=int, metavar="N", help="the latest N requests instead")
    parser.add_argument("--hours", type=int, metavar="N", help="the last N hours by endpoint and model instead")


def run(args: argparse.Namespace) -> int:
    """Print it; the exit status."""
    asyncio.run(_run(args))
    return 0


async def _run(args: argparse.Namespace) -> None:
    async with connected(args.file) as connections, connections.live() as live:
        backlog = await _flushed(live)
        if args.events is not None:
            await connections.ledger.account(args.account)
            events = await connections.ledger.recent_events(args.account, max(0, args.events))
            print(msgspec.json.encode(_named(events)).decode() if args.json else _events_table(events))
        elif args.hours is not None:
            hours = await _hours(connections, args.account, args.hours)
            print(msgspec.json.encode(hours).decode() if args.json else _hours_table(hours))
        else:
            report = await _report(connections, live, args.account, backlog)
            print(msgspec.json.encode(report).decode() if args.json else _text(report))
    if backlog is None:
        print("Redis does not answer: running requests and events that wait there are not counted.", file=sys.stderr)
    elif backlog:
        print(f"{backlog:,} settled requests, of all accounts, are not in the ledger yet.", file=sys.stderr)


async def _flushed(live: Live | None) -> int | None:
    """Wait a moment for the flusher to pass what is on the stream; what is left, None where Redis is silent."""
    if live is None:
        return None
    ends_s = time.monotonic() + FLUSH_PATIENCE_S
    try:
        while left := await live.stream.backlog():
            if time.monotonic() >= ends_s:
                break
            await asyncio.sleep(_POLL_S)
    except (Fault, RedisError):
        return None
    return left


async def _report(connections: Connections, live: Live | None, account_id: str, backlog: int | None) -> Report:
    standing = await connections.ledger.standing(account_id)
    account, now_s = standing.account, int(time.time())
    tier = connections.entitled_tier(standing, now_s)
    peeked = None if live is None or backlog is None else await live.limiter.peek(account_id)
    counters = {} if peeked is None else peeked[2]
    return Report(
        account=account.id,
        tier=tier.name,
        suspended=account.suspended,
        time_zone=tier.time_zone.key,
        limits=[await _limit(connections, account_id, tier, limit, now_s, counters) for limit in tier.limits],
        today=await _period(connections, account_id, tier, Window.DAY, now_s),
        this_month=await _period(connections, account_id, tier, Window.MONTH, now_s),
        concurrency=tier.concurrency,
        running=None if backlog is None else 0 if peeked is None else peeked[1],
        backlog=backlog,
    )


async def _limit(
    connections: Connections,
    account_id: str,
    tier: Tier,
    limit: Limit,
    now_s: int,
    counters: dict[str, tuple[int, int]],
) -> LimitState:
    counter, start_s, end_s = span(tier, limit, now_s)
    totals = await connections.ledger.totals(account_id, start_s, end_s)
    settled = amount(limit.unit, totals.requests, Usage(totals.input_tokens, totals.output_tokens))
    live_start_s, live_used = counters.get(counter, (0, 0))
    used = live_used if live_start_s == start_s else settled
    percent = round(100 * used / limit.maximum, 1) if limit.maximum else 100.0
    return LimitState(limit.name, used, settled, limit.maximum, percent, end_s)


async def _period(connections: Connections, account_id: str, tier: Tier, window: Window, now_s: int) -> PeriodTotals:
    totals: Totals = await connections.ledger.totals(account_id, *bounds(window, now_s, tier.time_zone))
    return PeriodTotals(
        totals.requests,
        totals.input_tokens,
        totals.output_tokens,
        totals.cached_tokens,
        totals.reasoning_tokens,
        totals.tokens,
    )


async def _hours(connections: Connections, account_id: str, hours: int) -> list[HourUsage]:
    await connections.ledger.account(account_id)
    next_s = (int(time.time()) // HOUR_S + 1) * HOUR_S
    return await connections.ledger.usage_by_hour(account_id, next_s - max(0, hours) * HOUR_S, next_s)


def _text(report: Report) -> str:
    state = ", suspended" if report.suspended else ""
    bound = "unbounded" if report.concurrency is None else f"at most {report.concurrency:,}"
    running = "unknown" if report.running is None else f"{report.running:,}"
    limits = [
        (state.limit, state.used, state.maximum, f"{state.percent:5.1f} %", _moment(state.resets_s))
        for state in report.limits
    ]
    periods = [
        (name, *msgspec.structs.astuple(totals))
        for name, totals in (("today", report.today), ("this month", report.this_month))
    ]
    return "\n".join(
        [
            f"account {report.account}, tier {report.tier}{state}; requests under way: {running}, {bound}",
            "",
            table(("LIMIT", "USED", "MAXIMUM", "PERCENT", "RESETS"), limits),
            "",
            table((f"IN {report.time_zone}", *_COLUMNS), periods),
        ]
    )


def _hours_table(hours: list[HourUsage]) -> str:
    rows = [
        (
            _moment(one.hour_s),
            one.endpoint,
            one.model or "-",
            one.totals.requests,
            one.totals.input_tokens,
            one.totals.output_tokens,
            one.totals.cached_tokens,
            one.totals.reasoning_tokens,
            one.totals.tokens,
        )
        for one in hours
    ]
    return table(("HOUR", "ENDPOINT", "MODEL", *_COLUMNS), rows)


def _events_table(events: list[UsageEvent]) -> str:
    head = ("ADMITTED", "REQUEST", "ENDPOINT", "MODEL", "STATUS", "OUTCOME", "COUNTED BY", *_COLUMNS[1:])
    rows = [
        (
            _moment(event.admitted_ms // 1000),
            event.request_id,
            event.endpoint,
            event.model or "-",
            str(event.status),
            event.outcome.value,
            event.counted_by.value,
            event.input_tokens,
            event.output_tokens,
            event.cached_tokens,
            event.reasoning_tokens,
            event.input_tokens + event.output_tokens,
        )
        for event in events
    ]
    return table(head, rows)


def _named(events: list[UsageEvent]) -> list[dict[str, str | int]]:
    """Events by field name: on the wire and in the ledger they are rows."""
    return [msgspec.structs.asdict(event) for event in events]


def _moment(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
