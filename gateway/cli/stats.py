"""Show statistics: subscriptions and requests by tier, churn, refusals, endpoints; or a day's or month's accounts."""

import argparse
from collections.abc import Sequence

from gateway.cli.desk import as_json, typed, work_at_desk
from gateway.cli.table import table
from gateway.cli.verbs import add_file, add_json
from gateway.console.admin_answers import Stats, UsedTold
from gateway.console.admin_bodies import StatsQuery, TopQuery
from gateway.console.admin_desk import Desk
from gateway.console.admin_stats import stats, top_accounts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which, and how to show them."""
    add_file(parser)
    parser.add_argument(
        "--days", type=int, default=30, help="how far back churn, tiers and endpoints are told; 30 unless given"
    )
    parser.add_argument("--top", metavar="WHEN", help="the accounts of a day (2026-11-21) or month (2026-11) instead")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="with --top: how many accounts")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print them; the exit status."""
    return work_at_desk(args, _tell if args.top is None else _tell_top)


async def _tell(desk: Desk, args: argparse.Namespace) -> None:
    told = await stats(desk, typed(StatsQuery, days=args.days))
    print(as_json(told) if args.json else _text(told))


async def _tell_top(desk: Desk, args: argparse.Namespace) -> None:
    top = await top_accounts(desk, typed(TopQuery, of=args.top, limit=args.limit))
    print(as_json(top) if args.json else _used("ACCOUNT", top.items))


def _text(told: Stats) -> str:
    refused = [(one.tier, one.limit, one.count) for one in told.refused]
    churn = f"over in {told.days} days: {told.ended:,} subscriptions ({told.churn_rate:.1%});"
    churn += f" {told.not_renewed:,} accounts have none since"
    return "\n".join(
        [
            table(("TIER", "SUBSCRIPTIONS NOW"), list(told.subscriptions.items())),
            "",
            churn,
            f"requests this machine has counted: {told.requests:,}, refused by a limit: {told.refusal_rate:.1%}",
            *([table(("TIER", "LIMIT", "REFUSED"), refused)] if refused else []),
            "",
            _used(f"TIER, {told.days} DAYS", told.tiers),
            "",
            _used(f"ENDPOINT, {told.days} DAYS", told.endpoints),
        ]
    )


def _used(what: str, found: Sequence[UsedTold]) -> str:
    rows = [(one.name, one.requests, one.input_tokens, one.output_tokens, one.tokens) for one in found]
    return table((what, "REQUESTS", "INPUT", "OUTPUT", "TOKENS"), rows)
