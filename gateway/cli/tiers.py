"""List the tiers as they are in force, with the defaults of what the settings leave out."""

import argparse

from gateway.cli.desk import as_json, work_at_desk
from gateway.cli.table import table
from gateway.cli.verbs import add_file, add_json
from gateway.console.admin_answers import TierTold
from gateway.console.admin_desk import Desk
from gateway.console.admin_plans import tiers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to show them."""
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print them; the exit status."""
    return work_at_desk(args, _tell)


async def _tell(desk: Desk, args: argparse.Namespace) -> None:
    told = tiers(desk)
    head = ("TIER", "LIMITS", "CONCURRENCY", "WITHOUT REDIS", "EXHAUSTED", "DISCONNECT", "ENTITLEMENTS")
    print(as_json(told) if args.json else table(head, [_row(tier) for tier in told.items]))


def _row(tier: TierTold) -> tuple[str, ...]:
    limits = [f"{limit.maximum:,} {limit.name}" for limit in tier.limits]
    said = [f"{name} {value:g}" for name, value in tier.numbers.items()]
    said += [f"{name} {'yes' if value else 'no'}" for name, value in tier.features.items()]
    said += [] if tier.bandwidth_mbit_s is None else [f"{tier.bandwidth_mbit_s:g} Mbit/s"]
    said += [f"{name} at {', '.join(one.at)}" for name, one in tier.schedules.items()]
    return (
        f"{tier.name} (default)" if tier.is_default else tier.name,
        ", ".join(limits) or "unbounded",
        "unbounded" if tier.concurrency is None else f"{tier.concurrency:,}",
        tier.when_unavailable,
        tier.on_exhausted,
        tier.on_disconnect,
        ", ".join(said) or "-",
    )
