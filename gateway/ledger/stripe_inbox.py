"""The inbox of Stripe's events: each is stored once, by its id, before anything is done about it.

An event is applied and marked as applied in one transaction with its effect, its row locked: it counts once, whoever
delivers it how often, and a crash in between leaves it to be tried again. Its content is forgotten once it is applied.
"""

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from gateway.ledger.database import Connection, Database, whole
from gateway.ledger.tables import accounts, stripe_customers, stripe_events


class State(StrEnum):
    """Where a stored event stands."""

    RECEIVED = "received"
    APPLIED = "applied"
    IGNORED = "ignored"
    """Of no meaning here; stored all the same."""
    PARKED = "parked"
    """Its customer's account is not known yet."""
    FAILED = "failed"
    """Could not be applied; it is tried again."""


DONE = frozenset({State.APPLIED, State.IGNORED})


class InboxEvent(msgspec.Struct, frozen=True):
    """One row. `subject` is the id of what it is about, a refund's the payment; `account_id` the account it names.

    `retry_ms` is when it is tried next (Unix ms); `payload` is the event as Stripe sent it, None once it is applied.
    """

    id: str
    type: str
    subject: str
    customer_id: str
    account_id: str
    created_s: int
    received_ms: int
    state: State = State.RECEIVED
    attempts: int = 0
    retry_ms: int = 0
    error: str = ""
    payload: bytes | None = None


Effect = Callable[[Connection], Awaitable[State]]
"""What an event does, within the transaction that marks it; what it ends as, APPLIED or IGNORED."""


class InboxBook(Database):
    """What Stripe told. Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def store_stripe_event(self, event: InboxEvent) -> State:
        """Store it unless its id is there; where the stored one stands."""
        try:
            async with self.writing() as connection:
                await connection.execute(insert(stripe_events), _row(event))
        except IntegrityError:
            known = await self._stripe_event(event.id)
            return State.RECEIVED if known is None else known.state
        return State.RECEIVED

    @whole
    async def stripe_event(self, event_id: str) -> InboxEvent | None:
        """The stored event."""
        return await self._stripe_event(event_id)

    @whole
    async def settle_stripe_event(self, event_id: str, effect: Effect) -> State:
        """Let it have its effect and mark it so, in one transaction; one that is done is left alone.

        Raises what `effect` raises, with nothing changed.
        """
        locked = select(stripe_events.c.state).where(stripe_events.c.id == event_id).with_for_update()
        async with self.writing() as connection:
            state = State(await connection.scalar(locked) or State.IGNORED)
            if state in DONE:
                return state
            state = await effect(connection)
            changed: dict[str, Any] = {"state": state.value, "error": "", "attempts": stripe_events.c.attempts + 1}
            if state is State.APPLIED:
                changed["payload"] = None
            await connection.execute(update(stripe_events).where(stripe_events.c.id == event_id).values(changed))
            return state

    @whole
    async def delay_stripe_event(self, event: InboxEvent) -> None:
        """It could not be applied: keep its state, error, next try and account. One that is done is left alone."""
        changed: dict[str, object] = {"state": event.state.value, "error": event.error[:500]}
        changed |= {"retry_ms": event.retry_ms, "account_id": event.account_id}
        mine = and_(stripe_events.c.id == event.id, stripe_events.c.state.not_in([one.value for one in DONE]))
        async with self.writing() as connection:
            counted = update(stripe_events).where(mine).values(changed | {"attempts": stripe_events.c.attempts + 1})
            await connection.execute(counted)

    @whole
    async def due_stripe_events(self, now_ms: int, limit: int = 100) -> list[InboxEvent]:
        """Those to be tried now, oldest first: their time has come, or their account has."""
        columns = stripe_events.c
        named = select(accounts.c.id).where(accounts.c.id == columns.account_id).exists()
        linked = select(stripe_customers.c.id).where(stripe_customers.c.id == columns.customer_id).exists()
        waiting = columns.state.in_([State.RECEIVED.value, State.FAILED.value])
        parked = and_(columns.state == State.PARKED.value, or_(named, linked))
        found = select(stripe_events).where(or_(and_(waiting, columns.retry_ms <= now_ms), parked))
        return await self._stripe_events(found.order_by(columns.created_s, columns.id).limit(limit))

    @whole
    async def open_stripe_events(self, after_id: str = "", limit: int = 100) -> list[InboxEvent]:
        """Events that are not done, in order of their ids, those that come after `after_id`."""
        not_done = stripe_events.c.state.not_in([one.value for one in DONE])
        found = select(stripe_events).where(not_done, stripe_events.c.id > after_id)
        return await self._stripe_events(found.order_by(stripe_events.c.id).limit(limit))

    @whole
    async def count_open_stripe_events(self) -> int:
        """How many events are not done."""
        not_done = stripe_events.c.state.not_in([one.value for one in DONE])
        async with self.reading() as connection:
            return int(await connection.scalar(select(func.count()).where(not_done)) or 0)

    @whole
    async def forget_stripe_events(self, before_ms: int) -> int:
        """Delete those that are done and were received before; how many. Stripe sends none again after a month."""
        done = stripe_events.c.state.in_([one.value for one in DONE])
        async with self.writing() as connection:
            gone = await connection.execute(delete(stripe_events).where(done, stripe_events.c.received_ms < before_ms))
            return int(gone.rowcount)

    async def _stripe_event(self, event_id: str) -> InboxEvent | None:
        found = await self._stripe_events(select(stripe_events).where(stripe_events.c.id == event_id))
        return found[0] if found else None

    async def _stripe_events(self, question: object) -> list[InboxEvent]:
        async with self.reading() as connection:
            return [_event(row) for row in await connection.execute(question)]  # type: ignore[call-overload]  # a Select


async def ignored_about(connection: Connection, subject: str, kind: str) -> list[InboxEvent]:
    """Events of a type about one thing that had no meaning when they came."""
    columns = stripe_events.c
    mine = and_(columns.subject == subject, columns.type == kind, columns.state == State.IGNORED.value)
    return [_event(row) for row in await connection.execute(select(stripe_events).where(mine))]


def _event(row: Sequence[Any]) -> InboxEvent:
    before, state, after = row[:7], State(row[7]), row[8:]
    return InboxEvent(*(*before, state, *after))


def _row(event: InboxEvent) -> dict[str, object]:
    return msgspec.structs.asdict(event) | {"state": event.state.value}
