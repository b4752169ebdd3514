"""What the verbs of the metering API do: the same admission, scripts and events as of a proxied request.

Nothing of a request stays in this process, so that any worker of any gateway answers the next verb. Promises: each verb
may be sent again; the first report of a request's end stands; what an app never settles is charged when its lease ends,
and a later settle corrects that. Fails with Fault; LIMITER_UNAVAILABLE whatever the tier says, as there is no journal
that another worker could read.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec
from msgspec import UNSET

from gateway.domain.accounts import Caller
from gateway.domain.decisions import Extension, Extent, Line, Refused, Renewal, Reservation, judge, used_of
from gateway.domain.faults import LIMITER_UNAVAILABLE, REQUEST_ENDED, UNKNOWN_REQUEST, Fault
from gateway.domain.limits import SLOTS, Unit
from gateway.domain.metered import reported, scoped
from gateway.domain.usage import LATE, Outcome, Usage, UsageEvent, amount, corrected
from gateway.edge.exchange import Exchange
from gateway.edge.hydration import Hydration
from gateway.edge.key_scope import check_scope
from gateway.edge.metering_answers import ended_body, held_body, send_answer
from gateway.edge.metering_bodies import (
    Estimate,
    ExtendBody,
    LeaseBody,
    ReleaseBody,
    Reported,
    ReserveBody,
    SettleBody,
    own_id,
    read,
)
from gateway.edge.proxy import Proxy
from gateway.edge.reply import send_refusal
from gateway.edge.request_id import new_request_id
from gateway.ledger.ledger import Ledger
from gateway.quota.hold import Charge, Hold
from gateway.quota.limiter import Limiter
from gateway.quota.metered import MeteredRequests, Trace
from gateway.snapshot import Plan

ATTEMPTS = 4
"""Questions about one extension: each answer but the last has told something new."""

_NOTHING = Reported()
_RELEASED = "The request of this id was released. What it used all the same goes to `usage`, under another id."
_SETTLED = "The request of this id was settled, and what is charged for it stays charged."
_FORGOTTEN = (
    "The lease of this request ended more than a day ago, and what it then was taken to have used is charged. "
    "What it used beyond that goes to `usage`, under another id."
)


@dataclass(frozen=True, slots=True)
class MeteringVerbs:
    """By the same parts as `proxy`.

    `withdraw` keeps a reservation that got no answer from being given back, as it is asked for again.
    """

    proxy: Proxy
    limiter: Limiter
    requests: MeteredRequests
    hydration: Hydration
    ledger: Ledger
    withdraw: Callable[[str], None]

    async def reserve(self, exchange: Exchange, caller: Caller, token: bytes, body: bytes) -> None:
        """Hold an estimate and a running slot, or refuse. Under a known id the hold that there is is told again."""
        asked = read(ReserveBody, body)
        _name(exchange, caller, asked.request_id or new_request_id())
        if asked.request_id:
            trace = await self._find(exchange, caller)
            if trace.report or trace.reaped or (trace.hold is None and await self._is_in_ledger(exchange.request_id)):
                raise Fault(REQUEST_ENDED)
            if trace.hold is not None:
                return await self._tell_held(exchange, caller, trace.hold, trace.lease_ends_ms)
            self.withdraw(exchange.request_id)
        _take_model(exchange, caller, asked.model)
        estimate = self._estimate(exchange, asked.estimate, asked.model)
        lease_ms = self.proxy.admission.lease_ms if asked.lease_s is UNSET else asked.lease_s * 1000
        decision = await self.proxy.admission.ask(exchange, caller, token, estimate, lease_ms)
        if isinstance(decision, Refused):
            return await send_refusal(exchange, decision)
        if asked.request_id:
            await self._check_overtaken(exchange, caller)
        lines = () if exchange.reservation is None else exchange.reservation.lines
        held = [(line.name, line.amount) for line in lines]
        return await send_answer(exchange, held_body(exchange.request_id, held, decision.now_ms + lease_ms))

    async def extend(self, exchange: Exchange, caller: Caller, token: bytes, body: bytes) -> None:
        """Hold so much in all from now on, or refuse; a hold never shrinks."""
        del token
        asked = read(ExtendBody, body)
        _name(exchange, caller, asked.request_id)
        hold = _held(await self._find(exchange, caller))
        model = "" if hold.about is None else hold.about.model
        usage = self._estimate(exchange, asked.estimate, model)
        lines = self._lines_now(caller, hold, usage)
        for _ in range(ATTEMPTS):
            extent = await self.limiter.extend(Extension(exchange.request_id, caller.account_id, lines))
            if extent is Extent.EXTENDED:
                now = await self._find(exchange, caller)
                return await self._tell_held(exchange, caller, _held(now), now.lease_ends_ms)
            if extent is Extent.GONE:
                raise Fault(REQUEST_ENDED)
            refused = await self._refusal(exchange, caller, lines, hold)
            if extent is Extent.REFUSED and refused is not None:
                return await send_refusal(exchange, refused)
        raise Fault(LIMITER_UNAVAILABLE, f"no decision on more for {exchange.request_id}")

    async def lease(self, exchange: Exchange, caller: Caller, token: bytes, body: bytes) -> None:
        """A sign of life: the lease begins anew, and what was used so far is what a reap would charge."""
        del token
        said = read(LeaseBody, body)
        _name(exchange, caller, said.request_id)
        about = _held(await self._find(exchange, caller)).about
        if about is None:
            raise Fault(UNKNOWN_REQUEST)
        if said.usage is not UNSET:
            about = msgspec.structs.replace(about, **msgspec.structs.asdict(said.usage))
        lease_ms = self.proxy.admission.lease_ms if said.lease_s is UNSET else said.lease_s * 1000
        await self.limiter.renew([Renewal(exchange.request_id, caller.account_id, lease_ms, about)])
        now = await self._find(exchange, caller)
        await self._tell_held(exchange, caller, _held(now), now.lease_ends_ms)

    async def settle(self, exchange: Exchange, caller: Caller, token: bytes, body: bytes) -> None:
        """Replace what is held by what was used."""
        del token
        said = read(SettleBody, body)
        _name(exchange, caller, own_id(said.request_id))
        trace = await self._find(exchange, caller)
        await self._end(exchange, caller, trace, said)

    async def release(self, exchange: Exchange, caller: Caller, token: bytes, body: bytes) -> None:
        """Give back what is held, as the request did not run."""
        del token
        _name(exchange, caller, read(ReleaseBody, body).request_id)
        trace = await self._find(exchange, caller)
        await self._end(exchange, caller, trace, SettleBody(_NOTHING, outcome=Outcome.RELEASED))

    async def usage(self, exchange: Exchange, caller: Caller, token: bytes, body: bytes) -> None:
        """Charge what was used without a reservation, past any limit, as it has happened; what is held is settled."""
        said = read(SettleBody, body)
        _name(exchange, caller, said.request_id or new_request_id())
        trace = await self._find(exchange, caller) if said.request_id else Trace()
        is_new = trace.begun is None and trace.report is None
        if is_new and not (said.request_id and await self._settled(exchange.request_id)):
            _take_model(exchange, caller, said.model)
            await self.proxy.admission.ask(
                exchange, caller, token, said.usage.usage, self.proxy.admission.lease_ms, is_used=True
            )
            trace = await self._find(exchange, caller)
        await self._end(exchange, caller, trace, said)

    async def _find(self, exchange: Exchange, caller: Caller) -> Trace:
        return await self.requests.find(caller.account_id, exchange.request_id)

    async def _end(self, exchange: Exchange, caller: Caller, trace: Trace, said: SettleBody) -> None:
        """Charge the first report of the request's end, if that was not done, and tell what stands."""
        report = trace.report
        if report is None:
            about = None if trace.begun is None else trace.begun.about
            if about is None:
                report = await self._settled(exchange.request_id)
                if report is None:
                    raise Fault(UNKNOWN_REQUEST)
                trace = Trace(report=report, charged=True)
            else:
                event = reported(about, said.usage.usage, said.outcome, self.limiter.now_ms, said.model)
                report = await self.requests.report(event)
        if (report.outcome is Outcome.RELEASED) is not (said.outcome is Outcome.RELEASED):
            raise Fault(REQUEST_ENDED, public=_RELEASED if report.outcome is Outcome.RELEASED else _SETTLED)
        if not trace.charged:
            await self.requests.charge(report, self._lines(caller, trace, report), trace)
            self._record(exchange, report)
        elif trace.hold is not None:
            self.requests.drop(caller.account_id, trace.hold)
        await self._look(exchange, caller)
        await send_answer(exchange, ended_body(report))

    def _lines(self, caller: Caller, trace: Trace, report: UsageEvent) -> list[Charge]:
        """The limits that a report counts in: those held, else those of its moment, where the hold was lost."""
        if trace.begun is not None:
            return trace.begun.lines
        plan = self._plan(caller)
        frame = None if plan is None else plan.frame(report.admitted_ms // 1000)
        return [] if frame is None else [(line.name, line.start_s, 0) for line in frame.lines]

    def _lines_now(self, caller: Caller, hold: Hold, usage: Usage) -> tuple[Line, ...]:
        """The lines held, under the account's maxima of today, for so much in all."""
        plan = self._plan(caller)
        frame = None if plan is None else plan.frame(self.limiter.now_ms // 1000)
        today = {} if frame is None else {line.name: line for line in frame.lines}
        return tuple(
            Line(
                line.name,
                line.start_s,
                line.end_s,
                today.get(line.name, line).maximum,
                line.amount if line.name.startswith(SLOTS) else _amount(line.name, usage),
                today.get(line.name, line).remedy,
            )
            for line in hold.asked
        )

    def _record(self, exchange: Exchange, report: UsageEvent) -> None:
        """Count the usage, once, and learn from it what a prompt comes to."""
        record = exchange.record
        record.model, record.outcome, record.counted_by = report.model, report.outcome, report.counted_by
        record.input_tokens, record.output_tokens = report.input_tokens, report.output_tokens
        record.cached_tokens, record.reasoning_tokens = report.cached_tokens, report.reasoning_tokens
        if report.outcome is Outcome.OK:
            self.proxy.ratios.learn(report.model, report.request_bytes, report.input_tokens)

    async def _settled(self, request_id: str) -> UsageEvent | None:
        """The event of a request that Redis has forgotten, from the ledger. Raises Fault(REQUEST_ENDED) for a reap."""
        event = await self.ledger.event(request_id)
        if event is None:
            return None
        event = corrected(event, await self.ledger.event(request_id + LATE))
        if event.outcome is Outcome.REAPED:
            raise Fault(REQUEST_ENDED, public=_FORGOTTEN)
        return event

    async def _is_in_ledger(self, request_id: str) -> bool:
        """Whether the ledger holds the request; a ledger that is away is taken to hold none."""
        with suppress(Fault):
            return await self.ledger.event(request_id) is not None
        return False

    async def _check_overtaken(self, exchange: Exchange, caller: Caller) -> None:
        """Give the hold back where the request was settled, under its id, while this reservation was on its way."""
        trace = await self._find(exchange, caller)
        if trace.charged and trace.hold is not None:
            self.requests.drop(caller.account_id, trace.hold)
        if trace.charged:
            raise Fault(REQUEST_ENDED)

    async def _tell_held(self, exchange: Exchange, caller: Caller, hold: Hold, lease_ends_ms: int) -> None:
        await self._look(exchange, caller)
        held = [(name, amount) for name, _, amount in hold.lines]
        await send_answer(exchange, held_body(exchange.request_id, held, lease_ends_ms))

    async def _refusal(self, exchange: Exchange, caller: Caller, lines: tuple[Line, ...], hold: Hold) -> Refused | None:
        """Why these lines can't be held; None where nothing speaks against it now. Brings back a state that is gone."""
        live = await self._look(exchange, caller)
        if live is None:
            plan = self._plan(caller)
            if plan is not None:
                frame = plan.frame(self.limiter.now_ms // 1000)
                await self.hydration.hydrate(caller.account_id, caller.version, plan, frame)
            return None
        already = {name: held for name, _, held in hold.lines}
        more = tuple([msgspec.structs.replace(line, amount=max(0, line.amount - already[line.name])) for line in lines])
        used = tuple([used_of(live, line) for line in lines])
        return judge(Reservation(exchange.request_id, caller.account_id, 0, more), self.limiter.now_ms, used, 0)

    async def _look(self, exchange: Exchange, caller: Caller) -> dict[str, tuple[int, int]] | None:
        """Note where the limits stand, for the answer's head; the live counters, None where there are none."""
        plan, now_ms = self._plan(caller), self.limiter.now_ms
        with suppress(Fault):
            live = await self.limiter.peek(caller.account_id)
            if live is not None and plan is not None:
                frame = plan.frame(now_ms // 1000)
                exchange.plan, exchange.frame, exchange.admitted_ms = plan, frame, now_ms
                exchange.used = tuple([used_of(live[2], line) for line in frame.lines])
            return None if live is None else live[2]
        return None

    def _estimate(self, exchange: Exchange, asked: Estimate, model: str) -> Usage:
        record = exchange.record
        if asked.prompt_bytes is not UNSET:
            # In the place of the body's: what the model is learned from once the app tells the tokens.
            record.request_bytes = asked.prompt_bytes
        told = asked.input_tokens
        input_tokens = self.proxy.ratios.tokens(model, record.request_bytes) if told is UNSET else told
        estimate = exchange.estimate = Usage(input_tokens, asked.output_tokens)
        record.estimated_tokens = estimate.tokens
        return estimate

    def _plan(self, caller: Caller) -> Plan | None:
        plan: Plan | None = caller.plan or self.proxy.admission.plans.get(caller.tier)
        return plan


def _name(exchange: Exchange, caller: Caller, own: str) -> None:
    exchange.request_id = exchange.record.request_id = scoped(caller.account_id, own)


def _take_model(exchange: Exchange, caller: Caller, model: str) -> None:
    """Note the model. Raises Fault(MODEL_NOT_IN_KEY)."""
    if caller.scope is not None:
        check_scope(caller.scope, exchange.scope["raw_path"], model)
    exchange.record.model = model


def _held(trace: Trace) -> Hold:
    """The hold. Raises Fault: UNKNOWN_REQUEST, REQUEST_ENDED."""
    if trace.hold is None or trace.report is not None:
        raise Fault(UNKNOWN_REQUEST if trace.begun is None and trace.report is None else REQUEST_ENDED)
    return trace.hold


def _amount(limit: str, usage: Usage) -> int:
    return amount(Unit(limit.partition("/")[0]), 1, usage)
