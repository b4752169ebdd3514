"""The passes of a running gateway over all of Stripe's subscriptions: at its start, and then on a schedule."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from gateway.billing.reconcile import Drift, Reconcile, Tally
from gateway.domain.audit import Actor
from gateway.domain.faults import Fault
from gateway.telemetry.log import log

_AGAIN_S, _MARGIN_S = 30.0, 120

Take = Callable[[str, int], Awaitable[bool]]
"""As `Lease.take`: owner, and for how many ms."""


async def run_sync(
    reconcile: Reconcile, take: Take, owner: str, interval_s: int, told: Callable[[], Awaitable[None]]
) -> NoReturn:
    """Compare and heal, until cancelled. Of all gateways the one whose lease it is; what fails is tried again soon."""
    while True:
        pause_s = float(interval_s)
        try:
            if await take(owner, (interval_s + _MARGIN_S) * 1000):
                tally = await reconcile.run(Actor("stripe", "sync"), _tell, _quiet, heals=True)
                log.info("stripe_synced", subscriptions=tally.seen, drifted=tally.drifted, healed=tally.healed)
                await told()
        except Fault as fault:
            log.warning("stripe_sync_failed", detail=fault.internal or fault.public)
            pause_s = _AGAIN_S
        except Exception as error:  # noqa: BLE001  # a background task: it must outlive whatever goes wrong
            log.warning("stripe_sync_failed", detail=repr(error))
            pause_s = _AGAIN_S
        await asyncio.sleep(pause_s)


def _tell(drift: Drift) -> None:
    if drift.outcome != "no account":
        log.warning(
            "stripe_drift",
            subscription_id=drift.subscription_id,
            account_id=drift.account_id,
            fields=", ".join(drift.fields),
            outcome=drift.outcome,
        )


def _quiet(_tally: Tally) -> None:
    pass
