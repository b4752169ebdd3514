"""Settle: what a request really used takes the place of what was held, and becomes an event for the ledger.

Promises: once for each request admitted, whatever became of it; on its way before the last byte of the answer is, so
that a caller's next request already finds it counted, and no answer is whole that a kill could leave uncharged.
"""

import time
from collections.abc import Generator
from types import coroutine

import msgspec

from gateway.domain.decisions import Renewal, Settlement
from gateway.domain.usage import CountedBy, Outcome, Usage, UsageEvent, correction
from gateway.edge.exchange import Exchange
from gateway.metering.ratio import Ratios
from gateway.metering.tokenizer import Tokenizer
from gateway.quota.limiter import Limiter

_pack = msgspec.msgpack.Encoder().encode


@coroutine
def has_left() -> Generator[None, None, None]:
    """Wait until a settlement that was just queued has left the process; not for its answer. Costs no future.

    Its batch is made in the next turn of the loop, its bytes are handed over in the one after that, and are with the
    kernel at that turn's end. So a process that is killed has settled whatever its callers have whole.
    """
    yield
    yield
    yield


class Settling:
    """Settles the requests of this process with the limiter, and teaches the ratios what upstreams counted."""

    def __init__(self, limiter: Limiter, ratios: Ratios, tokenizer: Tokenizer) -> None:
        self._limiter = limiter
        self._ratios = ratios
        self._tokenizer = tokenizer

    def settle(self, exchange: Exchange, usage: Usage, counted_by: CountedBy, outcome: Outcome, requests: int) -> None:
        """Replace the hold by `usage` and `requests` (1, or 0 where the request is given back). Once; then nothing."""
        asked, plan = exchange.reservation, exchange.plan
        if not exchange.holding or asked is None or plan is None:
            return
        record = exchange.record
        told_tokens = usage.input_tokens
        if exchange.earlier is not None:
            usage = usage.plus(exchange.earlier)
        if exchange.gone and outcome is Outcome.OK:
            outcome = Outcome.CLIENT_GONE
        record.outcome, record.counted_by = outcome, counted_by
        record.input_tokens, record.output_tokens = usage.input_tokens, usage.output_tokens
        record.cached_tokens, record.reasoning_tokens = usage.cached_tokens, usage.reasoning_tokens
        if counted_by is CountedBy.UPSTREAM and exchange.ask is not None:
            self._ratios.learn(record.model, exchange.ask.prompt_bytes, told_tokens)
        amounts = plan.charged(requests, usage)
        # One pass, without a call per limit: this runs once a request, and each of its steps counts.
        settled, used = [], []
        for count, line, amount in zip(exchange.used, asked.lines, amounts, strict=True):
            left = count - line.amount + amount
            used.append(left if left > 0 else 0)  # noqa: FURB136  # max() is a call, four times a request
            settled.append((line.name, line.start_s, amount))
        exchange.used = tuple(used)
        exchange.holding = False
        event = _pack(usage_event(exchange, usage, counted_by, outcome, requests, _now_ms(exchange)))
        told = tuple(settled), event, False, exchange.admitted_ms, exchange.eras
        self._limiter.settle(Settlement(exchange.request_id, asked.account_id, *told))

    def settle_rest(self, exchange: Exchange, usage: Usage) -> None:
        """Charge what the upstream reported after what it gave for the end of its answer: by an event of its own."""
        asked, plan, record = exchange.reservation, exchange.plan, exchange.record
        if exchange.earlier is not None:
            usage = usage.plus(exchange.earlier)
        before = Usage(record.input_tokens, record.output_tokens, record.cached_tokens, record.reasoning_tokens)
        if asked is None or plan is None or usage == before:
            return
        outcome, now_ms = Outcome(record.outcome), _now_ms(exchange)
        charged, true = [
            usage_event(exchange, each, CountedBy.UPSTREAM, outcome, 1, now_ms) for each in (before, usage)
        ]
        event = correction(charged, true)
        more = zip(asked.lines, plan.charged(1, before), plan.charged(1, usage), strict=True)
        lines = tuple([(line.name, line.start_s, after - already) for line, already, after in more])
        # Nothing was held for it: where its first try may be lost, only the ledger can tell, so no era is named.
        told = lines, _pack(event), False, exchange.admitted_ms
        self._limiter.settle(Settlement(event.request_id, asked.account_id, *told))

    def give_back(self, exchange: Exchange, outcome: Outcome) -> None:
        """Settle a request that cost the caller nothing, as nothing was done for it."""
        self.settle(exchange, Usage(), CountedBy.ESTIMATE, outcome, 0)

    def renewal(self, exchange: Exchange) -> Renewal | None:
        """A sign of life of the request, with its usage so far; None where it is settled."""
        asked, reader = exchange.reservation, exchange.reader
        if not exchange.holding or asked is None:
            return None
        usage = None if reader is None else reader.usage
        if usage is None:
            usage = self.estimated(exchange, "" if reader is None else reader.text())
        if exchange.earlier is not None:
            usage = usage.plus(exchange.earlier)
        about = usage_event(exchange, usage, CountedBy.ESTIMATE, Outcome.REAPED, 1, _now_ms(exchange))
        return Renewal(exchange.request_id, asked.account_id, asked.lease_ms, about)

    def ratio(self, model: str) -> float:
        """Tokens a byte of text that `estimated` goes by."""
        return self._ratios.ratio(model)

    async def count(self, exchange: Exchange, text: str) -> tuple[Usage, CountedBy]:
        """The usage of an answer whose upstream reported none: the input as told or estimated, the text seen."""
        ask = exchange.ask
        if ask is None or ask.estimate_stands or ask.prompt_bytes == 0:
            return self.estimated(exchange, text), CountedBy.ESTIMATE
        tokens = await self._tokenizer.count(text) if text else None
        if tokens is not None:
            return _with_output(exchange, tokens), CountedBy.TOKENIZER
        return self.estimated(exchange, text), CountedBy.ESTIMATE

    def estimated(self, exchange: Exchange, text: str) -> Usage:
        """As `count`, by the learned ratio alone, at once."""
        ask = exchange.ask
        if ask is not None and ask.estimate_stands:
            return exchange.estimate
        if ask is None or ask.prompt_bytes == 0:
            return Usage()
        return _with_output(exchange, self._ratios.tokens(ask.model, len(text.encode())))


def _with_output(exchange: Exchange, output_tokens: int) -> Usage:
    """So much output, and the input as the upstream told it ahead of the answer, else as it was estimated."""
    told = None if exchange.reader is None else exchange.reader.told
    if told is None:
        return Usage(exchange.estimate.input_tokens, output_tokens)
    return msgspec.structs.replace(told, output_tokens=max(told.output_tokens, output_tokens))


def usage_event(
    exchange: Exchange, usage: Usage, counted_by: CountedBy, outcome: Outcome, requests: int, settled_ms: int
) -> UsageEvent:
    """The event that tells of the request, as far as it is known."""
    record = exchange.record
    # By position, in the order of the class: by name, a struct this wide takes six times as long to make.
    return UsageEvent(
        exchange.request_id,
        record.account_id,
        record.key_id,
        record.tier,
        record.route,
        record.endpoint,
        record.model,
        record.upstream,
        exchange.admitted_ms,
        settled_ms,
        record.status,
        outcome,
        counted_by,
        record.streamed,
        requests,
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        record.estimated_tokens,
        record.request_bytes,
        record.response_bytes,
        exchange.conversation_id,
        exchange.message_id,
    )


def _now_ms(exchange: Exchange) -> int:
    """The limiter's clock, as this process counts on from the request's admission."""
    return exchange.admitted_ms + int((time.perf_counter() - exchange.record.reserved_s) * 1000)
