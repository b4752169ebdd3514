"""Estimate and reserve: the one question to the limiter, asked again where its answer says that we know too little.

Promises: one round trip in the common case; an account's tier and limits are never older than the version the limiter
knows; an account that the limiter lost is rebuilt from the ledger before anything of it is admitted; where the limiter
is silent, the tier says whether this worker admits its share. Fails with Fault: what `Directory.identify` raises,
UNKNOWN_TIER, LIMITER_UNAVAILABLE, LEDGER_UNAVAILABLE; LEDGER_BEHIND where too much usage waits for the ledger.
"""

import time
from collections.abc import Mapping

import msgspec

from gateway.domain.accounts import Caller
from gateway.domain.decisions import Admitted, Line, Missing, Refused, Reservation, Skewed, Stale, used_of
from gateway.domain.faults import LEDGER_BEHIND, LIMITER_UNAVAILABLE, UNKNOWN_TIER, Fault
from gateway.domain.limits import MAXIMUM, WhenUnavailable
from gateway.domain.usage import CountedBy, Outcome, Usage
from gateway.edge.exchange import Exchange
from gateway.edge.hydration import Hydration
from gateway.edge.settling import usage_event
from gateway.identity.directory import Directory
from gateway.metering.backlog import Backlog
from gateway.quota.limiter import Limiter
from gateway.quota.outage import Outage
from gateway.snapshot import Frame, Plan

DECIDED = (Admitted, Refused)
ATTEMPTS = 8
"""Answers of the kind "ask again" before giving up: each one has told something new, so more means a fault."""


class Admission:
    """Asks the limiter on behalf of requests.

    `plans` are the tiers by name, for callers without a plan of their own; a reload puts others in their place.
    """

    def __init__(
        self,
        limiter: Limiter,
        outage: Outage,
        directory: Directory,
        hydration: Hydration,
        plans: Mapping[str, Plan],
        lease_ms: int,
        backlog: Backlog,
    ) -> None:
        self._outage = outage
        self._limiter = limiter
        self._directory = directory
        self._hydration = hydration
        self.plans = plans
        self.lease_ms = lease_ms
        self._backlog = backlog

    async def admit(self, exchange: Exchange, caller: Caller, token: bytes, estimate: Usage) -> Admitted | Refused:
        """Reserve one request and `estimate`; what was learned on the way stands in the exchange."""
        try:
            return await self.ask(exchange, caller, token, estimate, self.lease_ms)
        except Fault as fault:
            plan, asked = exchange.plan, exchange.reservation
            if fault.kind is not LIMITER_UNAVAILABLE or plan is None or asked is None:
                raise
            if plan.tier.when_unavailable is WhenUnavailable.DENY:
                raise
            decision = await self._outage.admit(asked, exchange.admitted_ms, exchange.eras)
            return _decided(exchange, exchange.frame, decision)

    async def ask(
        self,
        exchange: Exchange,
        caller: Caller,
        token: bytes,
        estimate: Usage,
        lease_ms: int,
        *,
        is_used: bool = False,
    ) -> Admitted | Refused:
        """As `admit`, by the limiter alone, for a lease of so many milliseconds.

        `is_used` says that the estimate is what was used already: no limit refuses it, and a reap charges the whole.
        """
        if self._backlog.full and not is_used:
            raise Fault(LEDGER_BEHIND, f"{self._backlog.events} events wait for the ledger")
        decision: object = None
        begun_ms = 0
        for _ in range(ATTEMPTS):
            plan: Plan | None = caller.plan or self.plans.get(caller.tier)
            if plan is None:
                caller, plan = await self._mended(caller, token)
            now_ms = max(begun_ms, self._limiter.now_ms)
            if exchange.gate is not None and (shut := exchange.gate.shut(plan.tier, now_ms // 1000)) is not None:
                exchange.record.tier = caller.tier
                exchange.frame, exchange.admitted_ms = plan.frame(now_ms // 1000), now_ms
                caller = await self._entitled_anew(exchange, caller, token, plan, shut)
                continue
            frame = plan.frame(now_ms // 1000)
            exchange.plan, exchange.frame, exchange.admitted_ms = plan, frame, now_ms
            exchange.record.tier = caller.tier
            asked = self._reservation(exchange, caller, plan, frame, estimate, lease_ms)
            asked = exchange.reservation = _lifted(asked, exchange, estimate) if is_used else asked
            exchange.eras = self._limiter.eras
            decision = await self._limiter.reserve(asked)
            if isinstance(decision, DECIDED):
                self._outage.saw(caller.account_id, frame.lines, decision.used)
                return _decided(exchange, frame, decision)
            if isinstance(decision, Stale):
                caller = await self._directory.identify_anew(caller, token)
            elif isinstance(decision, Missing):
                # Before the answer the limiter's clock may not have been known: the frame is looked up again.
                frame = plan.frame(max(begun_ms, self._limiter.now_ms) // 1000)
                await self._hydration.hydrate(caller.account_id, caller.version, plan, frame)
            elif isinstance(decision, Skewed):
                begun_ms = decision.begun_s * 1000
        raise Fault(LIMITER_UNAVAILABLE, f"no decision for account {caller.account_id}: last answer {decision}")

    async def _mended(self, caller: Caller, token: bytes) -> tuple[Caller, Plan]:
        """The caller as of now, whose tier nobody knew when it was read; else raises Fault(UNKNOWN_TIER).

        Such a request never comes to the limiter, which would tell that the account has changed: the ledger is asked.
        """
        caller = await self._directory.identify_anew(caller, token)
        plan: Plan | None = caller.plan or self.plans.get(caller.tier)
        if plan is None:
            raise Fault(UNKNOWN_TIER, f"account {caller.account_id} is on tier {caller.tier}, which is not defined")
        return caller, plan

    async def _entitled_anew(self, exchange: Exchange, caller: Caller, token: bytes, plan: Plan, shut: Fault) -> Caller:
        """The caller as of now, where its account may have changed since it was read; else raises `shut`, and where
        the limits stand is noted for its answer.
        """  # noqa: D205
        try:
            live = await self._limiter.peek(caller.account_id)
        except Fault:
            raise shut from None
        if live and live[0] <= caller.version:
            if exchange.frame is not None:
                exchange.used = tuple([used_of(live[2], line) for line in exchange.frame.lines])
            raise shut
        caller = await self._directory.identify_anew(caller, token)
        if not live:  # from now on the limiter knows the version, and who asks again costs the ledger nothing
            await self._hydration.hydrate(
                caller.account_id, caller.version, plan, plan.frame(self._limiter.now_ms // 1000)
            )
        return caller

    def _reservation(
        self, exchange: Exchange, caller: Caller, plan: Plan, frame: Frame, estimate: Usage, lease_ms: int
    ) -> Reservation:
        lines = [
            Line(line.name, line.start_s, line.end_s, line.maximum, asked, line.remedy)
            for line, asked in zip(frame.lines, plan.amounts(1, estimate), strict=True)
        ]
        # Should this process die, the input was read, and what the upstream made of it nobody knows.
        least = Usage(estimate.input_tokens)
        about = usage_event(exchange, least, CountedBy.ESTIMATE, Outcome.REAPED, 1, exchange.admitted_ms)
        return Reservation(
            exchange.request_id,
            caller.account_id,
            caller.version,
            tuple(lines),
            plan.concurrency,
            lease_ms,
            about,
        )


def _lifted(asked: Reservation, exchange: Exchange, used: Usage) -> Reservation:
    """The same without a maximum, its reap at all that was used."""
    lines = tuple([msgspec.structs.replace(line, maximum=MAXIMUM) for line in asked.lines])
    about = usage_event(exchange, used, CountedBy.APP, Outcome.REAPED, 1, exchange.admitted_ms)
    return msgspec.structs.replace(asked, lines=lines, concurrency=-1, about=about)


def _decided(exchange: Exchange, frame: Frame | None, decision: Admitted | Refused) -> Admitted | Refused:
    """Note what was decided: at the limiter's time, but in the windows that the request is counted in.

    They may begin later, by a clock that has moved back since.
    """
    exchange.record.reserved_s = time.perf_counter()
    exchange.used, exchange.admitted_ms = decision.used, decision.now_ms
    if frame is not None and frame.start_s * 1000 > decision.now_ms:
        exchange.admitted_ms = frame.start_s * 1000
    exchange.holding = isinstance(decision, Admitted)
    return decision
