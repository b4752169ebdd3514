"""The inbox of Stripe's events at work: each stored event is applied once, at once or later.

One that can't be applied stays, with why, and is tried again with growing pauses; one whose account is not known waits
until it is. What a process left undone when it died is taken up the same way.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import msgspec

from gateway.billing.effects import Effects, Parked
from gateway.billing.stripe_objects import StripeEvent
from gateway.domain.faults import Fault
from gateway.ledger.ledger import Ledger
from gateway.ledger.stripe_inbox import InboxEvent, State
from gateway.telemetry.log import log

FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 5_000, 3_600_000
TURN_S = 1.0
KEPT_MS = 90 * 86_400_000
"""How long what is done is remembered; Stripe sends nothing again after 30 days."""

_FORGETTING_S = 3_600
_DAY_MS = 86_400_000

Lead = Callable[[], Awaitable[bool]]
"""Whether this process is the one, of all gateways, to do it."""


class Inbox:
    """`on_end` is told each state that an event comes to."""

    def __init__(
        self, ledger: Ledger, effects: Effects, now_ms: Callable[[], int], on_end: Callable[[str], None]
    ) -> None:
        self.open = 0
        """How many events are not done, as of the last turn; 0 where another process leads."""
        self._ledger = ledger
        self._effects = effects
        self._now_ms = now_ms
        self._on_end = on_end

    async def apply(self, stored: InboxEvent) -> State:
        """Apply a stored event; where it stands then. Raises Fault(LEDGER_UNAVAILABLE) where nothing can be kept."""
        try:
            event = msgspec.json.decode(stored.payload or b"", type=StripeEvent)
            state = await self._ledger.settle_stripe_event(stored.id, await self._effects.of(event))
        except Parked as parked:
            named = parked.account_id or stored.account_id
            state = await self._delay(stored, State.PARKED, str(parked), named)
            log.warning("stripe_event_parked", event_id=stored.id, type=stored.type, detail=str(parked))
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one event, it is kept and told of
            detail = error.internal or error.public if isinstance(error, Fault) else f"{type(error).__name__}: {error}"
            state = await self._delay(stored, State.FAILED, detail, stored.account_id)
            log.warning("stripe_event_failed", event_id=stored.id, type=stored.type, detail=detail)
        self._on_end(state.value)
        return state

    async def turn(self) -> int:
        """Apply what is due, oldest first; how many came to an end."""
        ended = 0
        while due := await self._ledger.due_stripe_events(self._now_ms()):
            moved = 0
            for stored in due:
                moved += await self.apply(stored) in {State.APPLIED, State.IGNORED}
            ended += moved
            if not moved:
                break
        self.open = await self._ledger.count_open_stripe_events()
        return ended

    async def run(self, lead: Lead, told: Callable[[], Awaitable[None]]) -> NoReturn:
        """Apply what is due again and again, until cancelled. The first failure of a row of failures is logged."""
        failing, forgets_at_ms = False, self._now_ms()
        while True:
            try:
                if await lead():
                    if await self.turn():
                        await told()
                    if self._now_ms() >= forgets_at_ms:
                        forgets_at_ms = self._now_ms() + _FORGETTING_S * 1000
                        await self._ledger.forget_stripe_events(self._now_ms() - KEPT_MS)
                else:
                    self.open = 0
                failing = False
            except Exception as error:  # noqa: BLE001  # a background task: it must outlive whatever goes wrong
                if not failing:
                    log.warning("stripe_inbox_failed", detail=repr(error))
                failing = True
            await asyncio.sleep(TURN_S)

    async def _delay(self, stored: InboxEvent, state: State, error: str, account_id: str) -> State:
        pause_ms = min(FIRST_PAUSE_MS * 2 ** min(stored.attempts, 20), LONGEST_PAUSE_MS)
        await self._ledger.delay_stripe_event(
            msgspec.structs.replace(
                stored, state=state, error=error, retry_ms=self._now_ms() + pause_ms, account_id=account_id
            )
        )
        return state
