"""Compare the ledger with Stripe, list what is wrong, and say whose a customer is."""

import argparse
import asyncio
import sys
import time

from gateway.billing.reconcile import Drift, Tally
from gateway.billing.stripe_billing import StripeBilling, stripe_billing
from gateway.billing.verify import problems
from gateway.cli.bad_input import BadInput
from gateway.cli.connections import Connections, connected
from gateway.cli.operator import operator
from gateway.cli.verbs import add_verb
from gateway.domain.faults import Fault

_NO_KEY = "stripe.api_key is not set in the settings, so that Stripe can't be asked"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    sync = add_verb(verbs, "sync", "compare every subscription with Stripe's, and mend what differs")
    sync.add_argument("--dry-run", action="store_true", help="only tell what differs; status 1 if anything does")
    add_verb(verbs, "verify", "list what is wrong: products without entitlements, events that wait; status 1 if any")
    link = add_verb(verbs, "link", "say whose a customer of Stripe's is")
    link.add_argument("customer", metavar="CUSTOMER", help="cus_…")
    link.add_argument("account", metavar="ACCOUNT")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    return asyncio.run(_run(args))


async def _run(args: argparse.Namespace) -> int:
    async with connected(args.file) as connections:
        billing = stripe_billing(
            connections.settings,
            connections.ledger,
            _now_ms,
            tell=connections.tell_gateways,
            count=_uncounted,
            paused=_paused,
        )
        try:
            if args.verb == "sync":
                return await _sync(connections, billing, heals=not args.dry_run)
            if args.verb == "link":
                return await _link(connections, billing, args.customer, args.account)
            return await _verify(connections, billing)
        finally:
            await billing.aclose()


async def _sync(connections: Connections, billing: StripeBilling, *, heals: bool) -> int:
    if billing.reconcile is None:
        raise BadInput(_NO_KEY)
    if heals:
        await billing.inbox.turn()
    watch = _Watch()
    try:
        tally = await billing.reconcile.run(operator(), _tell, watch.show, heals=heals)
    except Fault:
        _clear()
        print(f"ended early, after {_told(watch.tally)}; what was mended stays, and another run goes on from it")
        raise
    finally:
        _clear()
        if heals:
            await connections.tell_gateways()
    if heals:
        await billing.inbox.turn()
    print(_told(tally))
    return 0 if tally.drifted == tally.healed else 1


async def _link(connections: Connections, billing: StripeBilling, customer: str, account: str) -> int:
    if not customer.startswith("cus_"):
        raise BadInput(f"{customer!r} is not a customer's id at Stripe, which begins with cus_")
    await connections.ledger.link_customer(customer, account, operator(), _now_ms())
    await billing.inbox.turn()
    await connections.tell_gateways()
    print(f"{customer} is {account}")
    return 0


async def _verify(connections: Connections, billing: StripeBilling) -> int:
    found = 0
    async for problem in problems(connections.settings, connections.ledger, billing.source):
        found += 1
        print(problem)
    if not found:
        print("nothing is wrong")
    return 1 if found else 0


def _tell(drift: Drift) -> None:
    _clear()
    print(f"{drift.subscription_id}  {drift.account_id or '-'}  {drift.outcome}: {', '.join(drift.fields)}")


def _told(tally: Tally) -> str:
    return (
        f"{tally.seen:,} subscriptions, {tally.drifted:,} differed, {tally.healed:,} mended,"
        f" {tally.without_account:,} of no known account"
    )


class _Watch:
    """How far a pass is, on a terminal; Stripe doesn't say how many there are."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._begun_s = time.monotonic()

    def show(self, tally: Tally) -> None:
        """A page is done."""
        self.tally = tally
        if sys.stderr.isatty():
            rate = tally.seen / max(0.001, time.monotonic() - self._begun_s)
            text = f"{tally.seen:,} subscriptions, {tally.drifted:,} differ, {rate:,.0f} a second"
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _paused(pause_s: float, why: str) -> None:
    _clear()
    print(f"{why}; again in {pause_s:.1f} s", file=sys.stderr, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _uncounted(_result: str) -> None:
    pass
