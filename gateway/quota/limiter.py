"""The limiter port. Two implementations pass one contract suite: `redis_limiter` and the reference `memory_limiter`.

All calls are idempotent by request id. Times are the limiter's own (Redis TIME); callers compute windows with
`clock_offset_ms` so that every gateway means the same window.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from gateway.domain.decisions import Counter, Decision, Extension, Extent, Renewal, Reservation, Settlement


class Limiter(Protocol):
    """Atomic admission over all limits of an account."""

    clock_offset_ms: int
    """The limiter's clock minus this process's clock, as of the last reply."""

    eras: tuple[str, ...]
    """Of each partition, a name of the span since which the limiter has lost nothing of it, as last heard: one that has
    ended is answered by another name, never used before. () while none was heard."""

    @property
    def now_ms(self) -> int:
        """Unix milliseconds by the limiter's clock, as far as its last reply told."""
        ...

    async def reserve(self, asked: Reservation) -> Decision:
        """Hold every line and a running slot, or take nothing and say why. One round trip.

        A limit that the account's state doesn't know makes the account Missing: what was used of its window before, on
        another tier or under older settings, is in the ledger alone.

        Raises Fault(LIMITER_UNAVAILABLE) when the limiter doesn't answer in time.
        """
        ...

    def settle(self, settlement: Settlement) -> "asyncio.Future[None]":
        """Replace the hold by the true amounts, free its slot, and put its event on the usage stream, in one step.

        A line whose window has rolled since is left alone. Where the hold is gone (the limiter's state was lost while
        the request ran) the amounts are charged in full, unless `again` says that an earlier attempt may have
        taken it: then only the event is written, and the ledger takes each request id once. Where that attempt
        may have been lost with the limiter's memory, as its era is not the settlement's any more, nobody but
        the ledger knows whether the amounts are in: the account's state is dropped, to be rebuilt once more. So
        it is where the account counts in an earlier window than the request, by a clock that has stepped back
        since. Where the hold was reaped, the difference to what that charged is made up for, by an event of its
        own (`gateway.domain.usage.correction`). Retried until the limiter answers; the future need not be
        awaited.
        """
        ...

    async def extend(self, extension: Extension) -> Extent:
        """Hold more for a request that runs past what it holds: every line, or nothing.

        A hold never shrinks. A line whose window has rolled since the hold was made has room, and the new window is
        left alone. Raises Fault(LIMITER_UNAVAILABLE); asking again is safe.
        """
        ...

    async def renew(self, renewals: Sequence[Renewal]) -> None:
        """Begin the leases of running requests anew, and keep what was counted of them so far.

        A hold that is gone is left so. Raises Fault(LIMITER_UNAVAILABLE).
        """
        ...

    async def reap(self) -> int:
        """Settle every hold whose lease ended at what was last told of it, and free its slot; how many.

        Any process may, at any time: each hold is reaped once. Raises Fault(LIMITER_UNAVAILABLE).
        """
        ...

    async def flushed_mark(self, account_id: str, patience_s: float) -> str:
        """A mark to be passed to `hydrate`, once all usage that the stream holds now is in the ledger.

        What the ledger says after that is complete up to the mark. Raises Fault(LIMITER_UNAVAILABLE) where the
        flusher doesn't get there within `patience_s`.
        """
        ...

    async def hydrate(
        self, account_id: str, version: int, counters: tuple[Counter, ...], expires_s: int, mark: str
    ) -> bool:
        """Create the account's state from what the ledger knows, unless it exists by now. Live holds are added.

        False where usage of the account was settled, or its entitlements changed, after `mark` was taken: read the
        ledger anew and try again.
        """
        ...

    async def peek(self, account_id: str) -> tuple[int, int, dict[str, tuple[int, int]]] | None:
        """Version, running count and, by limit name, (window start in Unix seconds, used); None without state."""
        ...

    async def bump(self, account_id: str, version: int) -> None:
        """Tell that the account's entitlements are now at `version` (never moves back).

        Without state, a hydration under way is told to start again.
        """
        ...

    async def forget(self, account_id: str) -> None:
        """Drop the account's state, whose counts lack what the ledger has: it is Missing, until it is hydrated anew.

        Live holds stay. A hydration under way is told to start again.
        """
        ...
