"""Extend: a stream that comes near what it holds holds a slice more, or, where there is none, is told to end.

Promises: between two looks a stream costs one comparison a read; the limiter is asked beside the stream, which waits
for the answer only where it has used up all it holds and its tier says `stop`. A tier that says `finish` holds what it
owes at once, past the limit too. What can't be asked (the limiter is silent) ends a `stop` stream where its hold does.
"""

import asyncio

import msgspec

from gateway.domain.decisions import Extension, Extent
from gateway.domain.faults import Fault
from gateway.domain.limits import MAXIMUM, OnExhausted
from gateway.domain.usage import CountedBy, Usage
from gateway.edge.exchange import Allowance, Exchange
from gateway.edge.hydration import Hydration
from gateway.edge.settling import Settling
from gateway.quota.limiter import Limiter

LAX_BYTES = 65_536
"""Of stream between two looks, at least, where the tier says `finish`: what is owed is charged at the end, however late
it is seen.
"""

RECOUNT = 1.125
"""Growth of a text after which its tokens are counted anew: counting so costs no more than in proportion to it."""

UNEVENNESS = 1.1
"""By how much denser in tokens the text to come is taken to be than the text that was counted."""


class Extending:
    """Of the streams of one process; `slice_tokens` are held at a time."""

    def __init__(self, limiter: Limiter, hydration: Hydration, settling: Settling, slice_tokens: int) -> None:
        self._limiter = limiter
        self._hydration = hydration
        self._settling = settling
        self._slice = slice_tokens

    def begin(self, exchange: Exchange) -> Allowance:
        """What the stream that begins may say before it is looked at."""
        plan, ask = exchange.plan, exchange.ask
        if plan is None or ask is None or not plan.counts_tokens or not exchange.holding:
            return Allowance()
        allowance = exchange.allowance = Allowance(
            held_tokens=exchange.estimate.output_tokens,
            strict=plan.tier.on_exhausted is OnExhausted.STOP,
            tokens_a_byte=self._settling.ratio(ask.model),
        )
        if allowance.strict:
            allowance.piece_bytes = int(self._slice / 2 / allowance.tokens_a_byte)
        self._look_again(exchange, allowance, 0)
        return allowance

    async def is_over(self, exchange: Exchange) -> bool:
        """Whether the stream has to end here. Asked where its allowance says so, and only between two events."""
        allowance, reader = exchange.allowance, exchange.reader
        if allowance is None or reader is None or reader.mid_event or reader.finished or not exchange.holding:
            return False
        if reader.usage is not None and not _is_growing(allowance, reader.usage):
            return False
        seen = self._seen(exchange, allowance)
        if self._is_near(allowance, seen) and allowance.asking is None and not allowance.refused:
            allowance.asking = asyncio.create_task(self._extend(exchange, allowance))
        if allowance.strict and seen > self._most(exchange, allowance):
            if await self._is_used_up(exchange, allowance):
                return True
            seen = self._seen(exchange, allowance)
        self._look_again(exchange, allowance, seen)
        return False

    async def _is_used_up(self, exchange: Exchange, allowance: Allowance) -> bool:
        """Whether what was seen is all that is held, once the limiter has answered and the text is truly counted."""
        if allowance.asking is not None:
            await allowance.asking
        if self._seen(exchange, allowance) <= self._most(exchange, allowance):
            return False
        await self._count(exchange, allowance, growth=1)
        return self._seen(exchange, allowance) > self._most(exchange, allowance)

    async def _extend(self, exchange: Exchange, allowance: Allowance) -> None:
        try:
            await self._count(exchange, allowance, RECOUNT)
            seen = self._seen(exchange, allowance)
            if not self._is_near(allowance, seen):
                return
            wanted = max(seen, allowance.held_tokens) + self._slice
            if await self._ask(exchange, wanted, strict=allowance.strict) is Extent.EXTENDED:
                allowance.held_tokens = wanted
            else:
                allowance.refused = allowance.strict
        except Fault as fault:
            exchange.record.detail = exchange.record.detail or fault.internal
        finally:
            allowance.asking = None

    async def _ask(self, exchange: Exchange, output_tokens: int, *, strict: bool) -> Extent:
        return await self.hold(exchange, Usage(exchange.estimate.input_tokens, output_tokens), strict=strict)

    async def hold(self, exchange: Exchange, usage: Usage, *, strict: bool) -> Extent:
        """Hold `usage` in place of what is held; `strict` only where it fits. Raises Fault(LIMITER_UNAVAILABLE)."""
        asked, plan = exchange.reservation, exchange.plan
        if asked is None or plan is None:
            return Extent.GONE
        amounts = plan.amounts(1, usage)
        lines = [
            msgspec.structs.replace(line, maximum=line.maximum if strict else MAXIMUM, amount=amount)
            for line, amount in zip(asked.lines, amounts, strict=True)
        ]
        extension = Extension(asked.request_id, asked.account_id, tuple(lines))
        extent = await self._limiter.extend(extension)
        if extent is Extent.MISSING:
            frame = plan.frame(self._limiter.now_ms // 1000)
            await self._hydration.hydrate(asked.account_id, asked.version, plan, frame)
            extent = await self._limiter.extend(extension)
        return extent

    async def _count(self, exchange: Exchange, allowance: Allowance, growth: float) -> None:
        """Have the text counted, where the upstream tells no usage and the text has grown so much since."""
        reader = exchange.reader
        if reader is None or reader.usage is not None or reader.text_bytes() <= allowance.counted_bytes * growth:
            return
        length = reader.text_bytes()
        usage, counted_by = await self._settling.count(exchange, reader.text())
        if counted_by is CountedBy.TOKENIZER and length:
            allowance.counted_bytes, allowance.counted_tokens = length, usage.output_tokens
            allowance.tokens_a_byte = UNEVENNESS * usage.output_tokens / length

    def _seen(self, exchange: Exchange, allowance: Allowance) -> int:
        """Output tokens so far, with the input beyond its estimate: as reported, else by the text."""
        reader = exchange.reader
        if reader is None:
            return 0
        usage = reader.usage
        if usage is not None:
            return usage.output_tokens + max(0, usage.input_tokens - exchange.estimate.input_tokens)
        since = reader.text_bytes() - allowance.counted_bytes
        return allowance.counted_tokens + int(since * allowance.tokens_a_byte)

    def _most(self, exchange: Exchange, allowance: Allowance) -> int:
        """Where a strict stream ends. Another count than the upstream's may be a little above it, and must not end a
        stream that keeps to its maximum: it gets a quarter of a slice more. A piece is half a slice, so that the bound
        of one slice holds.
        """  # noqa: D205
        reported = exchange.reader is not None and exchange.reader.usage is not None
        return allowance.held_tokens + (0 if reported else self._slice // 4)

    def _is_near(self, allowance: Allowance, seen: int) -> bool:
        return seen + self._margin(allowance) >= allowance.held_tokens

    def _margin(self, allowance: Allowance) -> int:
        """How far ahead of its end a hold is extended: long enough for an answer of the limiter to come meanwhile."""
        return min(self._slice // 2, allowance.held_tokens // 4)

    def _look_again(self, exchange: Exchange, allowance: Allowance, seen: int) -> None:
        """Look when the stream may be near what it holds: its text is no longer than itself."""
        left = allowance.held_tokens - seen - (0 if allowance.refused else self._margin(allowance))
        least = self._slice // 4 if allowance.strict else 0
        ahead = int(max(left, least) / max(allowance.tokens_a_byte, 0.01))
        allowance.look_bytes = exchange.record.response_bytes + max(ahead, 0 if allowance.strict else LAX_BYTES)


def _is_growing(allowance: Allowance, usage: Usage) -> bool:
    """Whether the upstream reports as it goes. A first report, or the same again, is the last word on an answer."""
    before, allowance.reported_tokens = allowance.reported_tokens, usage.output_tokens
    return 0 < before < usage.output_tokens
