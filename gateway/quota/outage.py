"""What a worker does while the limiter is silent: it admits its share, and keeps a journal of what was used.

Promises: a request admitted here stands in the journal before it is forwarded, and its usage before its answer ends; a
settlement that the limiter does not take is journaled too. Where the journal has no room or its disk fails, nothing is
admitted here any more. Fails with Fault(LIMITER_UNAVAILABLE).
"""

from collections import deque
from collections.abc import Callable

import msgspec

from gateway.domain.decisions import Admitted, Line, Refused, Reservation, Settlement
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.journal import Journal
from gateway.quota.journal_segment import JournalEntry, Kind
from gateway.quota.keys import era_of
from gateway.quota.local_limiter import LocalLimiter

_pack = msgspec.msgpack.Encoder().encode


class Outage:
    """One worker's. `admitted` counts the requests admitted here so far.

    `withdraw` is told of each: what the limiter may have taken of it is ended by its settlement, not given back.
    """

    def __init__(self, local: LocalLimiter, journal: Journal) -> None:
        self.admitted = 0
        self.withdraw: Callable[[str], None] = lambda _: None
        self.journal = journal
        self._local = local
        self._running: set[str] = set()
        self._unwritten: deque[JournalEntry] = deque()

    def saw(self, account_id: str, lines: tuple[Line, ...], used: tuple[int, ...]) -> None:
        """See `LocalLimiter.saw`."""
        self._local.saw(account_id, lines, used)

    async def admit(self, asked: Reservation, now_ms: int, eras: tuple[str, ...] = ()) -> Admitted | Refused:
        """Decide on a request that the limiter was not heard on; `eras` are its as last heard before.

        Raises Fault(LIMITER_UNAVAILABLE).
        """
        if self._unwritten or not self.journal.has_room:
            raise Fault(LIMITER_UNAVAILABLE, "not checked, and the journal takes no more admissions")
        decision = await self._local.reserve(asked, now_ms)
        if isinstance(decision, Refused):
            return decision
        held = tuple((line.name, line.start_s, line.amount) for line in asked.lines)
        about = b"" if asked.about is None else _pack(asked.about)
        era = era_of(eras, asked.account_id)
        entry = JournalEntry(Kind.ADMITTED, asked.request_id, asked.account_id, now_ms, held, about, era)
        if not self.journal.append(entry):
            self._local.give_back(asked)
            raise Fault(LIMITER_UNAVAILABLE, "not checked, and the journal can't be written")
        self._running.add(asked.request_id)
        self.withdraw(asked.request_id)
        self.admitted += 1
        return decision

    def settle(self, settlement: Settlement) -> bool:
        """Settle a request that was admitted here; False for any other."""
        if settlement.request_id not in self._running:
            return False
        self._running.discard(settlement.request_id)
        self._local.settle(settlement)
        entry = _entry(Kind.SETTLED, settlement)
        if self._unwritten or not self.journal.append(entry):
            self._unwritten.append(entry)
        return True

    def take_over(self, settlement: Settlement, *, sent: bool) -> bool:
        """Journal a settlement that the limiter does not answer; False where that fails. `sent`: it may be taken."""
        repeated = sent or settlement.again
        return self.journal.append(_entry(Kind.REPEATED if repeated else Kind.SETTLED, settlement))

    def write_again(self) -> int:
        """Write what the disk did not take; how many entries wait on."""
        while self._unwritten and self.journal.append(self._unwritten[0]):
            self._unwritten.popleft()
        return len(self._unwritten)


def _entry(kind: Kind, settlement: Settlement) -> JournalEntry:
    return JournalEntry(
        kind,
        settlement.request_id,
        settlement.account_id,
        settlement.admitted_ms,
        settlement.amounts,
        settlement.event,
        era_of(settlement.eras, settlement.account_id),
    )
