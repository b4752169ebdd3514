"""One cell of the matrix: played by a real client through a whole gateway, and judged by the upstream's own count."""

import asyncio
import contextlib
from dataclasses import dataclass

from gateway.domain.usage import CountedBy, Outcome, Usage, UsageEvent
from tests.support.matrix.clients import OWN_ERRORS, Bit, Call, Callers
from tests.support.matrix.columns import SLICE_TOKENS, Column, tier
from tests.support.matrix.endings import ENDINGS, HELD_TOKENS, SCANT_TOKENS, Ending, Then
from tests.support.matrix.expectations import Is, expected
from tests.support.matrix.unread import EMBEDDED
from tests.support.matrix.upstream import Play
from tests.support.matrix.wire import billed
from tests.support.stand import Stand
from tests.support.until import until

WITHIN_S = 30


@dataclass(slots=True)
class Heard:
    """What the client made of it."""

    words: int = 0
    finish: str = ""
    error: Exception | None = None

    def take(self, one: Bit) -> None:
        """Add a bit."""
        self.words += one.words
        self.finish = one.finish or self.finish


@dataclass(slots=True)
class Cell:
    """A column's row under one policy. The account has its name."""

    name: str
    column: Column
    row: str
    exhausted: str
    disconnect: str
    wants: Is

    @classmethod
    def of(cls, title: str, column: Column, row: str, policy: tuple[str, str]) -> "Cell":
        """The cell of the column called `title`."""
        name = "_".join((title, row, *policy)).replace(" ", "-").replace(",", "")
        wants = expected(title, row, exhausted=policy[0], disconnect=policy[1])
        return cls(name, column, row, *policy, wants)

    @property
    def ending(self) -> Ending:
        """What happens."""
        return ENDINGS[self.row]

    @property
    def tier(self) -> str:
        """The account's."""
        return tier(self.exhausted, self.disconnect, scant=self.ending.scant)

    @property
    def stops(self) -> bool:
        """Whether the gateway has to end the stream."""
        return self.ending.scant and self.exhausted == "stop" and self.column.stops_as != ""

    def play(self) -> Play:
        """The upstream's part."""
        return Play(self.column.wire, self.ending, cancels=self.disconnect == "cancel")

    async def perform(self, here: Stand, callers: Callers, key: str, play: Play) -> Heard:
        """The client's part, to its own end."""
        call = Call(here.url, key, self.name, callers)
        heard = Heard()
        async with asyncio.timeout(WITHIN_S):
            if self.ending.leaves:
                await self._leave(here, call, play, heard)
                return heard
            for step in (1, 2) if self.ending.steps else (1,):
                await self._listen(Call(here.url, key, self.name, callers, step), heard)
        return heard

    async def _listen(self, call: Call, heard: Heard) -> None:
        try:
            if not self.ending.streamed:
                heard.take(await self.column.client.whole(call))
                return
            async for one in self.column.client.stream(call):
                heard.take(one)
        except Exception as error:  # noqa: BLE001  # which it is is judged below
            heard.error = error

    async def _leave(self, here: Stand, call: Call, play: Play, heard: Heard) -> None:
        if self.ending.streamed:
            client = self.column.client
            bits = (client.left or client.stream)(call)
            seen, begun = 0, 1 + len(play.wire.begin())
            while seen < begun or heard.words < self.ending.words:
                heard.take(await anext(bits))
                seen += 1
            await bits.aclose()
        else:
            waiting = asyncio.ensure_future(self.column.client.whole(call))
            await play.asked.wait()
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting

        async def noticed() -> bool:
            running = here.gateway._departures.running
            return all(exchange.gone for exchange in running if exchange.record.account_id == self.name)

        await until(noticed, WITHIN_S)
        play.go.set()
        await play.done.wait()

    def judge(self, events: list[UsageEvent], play: Play, heard: Heard) -> list[str]:
        """What is wrong: with the bill, with what the client was told, with the upstream that should be let go."""
        ending = self.ending
        requests = 2 if ending.steps else 1
        wrong = [] if len(events) == requests else [f"{requests} requests, {len(events)} events"]
        if events:
            wrong += self._judge_bill(events, play, heard)
        if not ending.leaves:
            wrong += self._judge_heard(heard)
        elif play.let_go is not play.cancels:
            wrong.append(f"the upstream was {'' if play.let_go else 'not '}let go")
        return [f"{self.name}: {one}" for one in wrong]

    def _judge_bill(self, events: list[UsageEvent], play: Play, heard: Heard) -> list[str]:
        last = events[-1]
        got = Usage(
            sum(event.input_tokens for event in events),
            sum(event.output_tokens for event in events),
            sum(event.cached_tokens for event in events),
            sum(event.reasoning_tokens for event in events),
        )
        words = heard.words if self.stops else play.words
        if self.wants is Is.INPUT:
            words = 0
        wrong = []
        wanted = self._wanted(last, words, play)
        if got != wanted and not (self.wants is Is.ESTIMATE and got.tokens == last.estimated_tokens):
            wrong.append(f"the upstream's count is {wanted}, the ledger's {got}")
        if (last.counted_by is CountedBy.UPSTREAM) is not (self.wants is Is.TOLD):
            wrong.append(f"counted by {last.counted_by}")
        if last.requests != (0 if self.wants is Is.NOTHING else 1):
            wrong.append(f"{last.requests} requests charged")
        outcome = Outcome.STOPPED if self.stops else self.ending.outcome(cancels=play.cancels)
        if last.outcome != outcome:
            wrong.append(f"outcome {last.outcome}, not {outcome}")
        if self.stops and got.tokens > SCANT_TOKENS + SLICE_TOKENS:
            wrong.append(f"{got.tokens} tokens: past the limit and a slice")
        return wrong

    def _wanted(self, last: UsageEvent, words: int, play: Play) -> Usage:
        if self.wants is Is.TOLD:
            told = EMBEDDED if self.column.silent else billed(words)
            return told.plus(billed(0)) if self.ending.steps else told
        if self.wants in {Is.NOTHING, Is.REQUEST, Is.ESTIMATE}:
            return Usage()
        told_ahead = play.wire.told if self.ending.streamed else None
        if told_ahead is not None:
            return Usage(told_ahead.input_tokens, max(told_ahead.output_tokens, words), told_ahead.cached_tokens)
        held = 0 if self.column.silent else HELD_TOKENS
        return Usage(last.estimated_tokens - held, words)

    def _judge_heard(self, heard: Heard) -> list[str]:
        ending = self.ending
        broken = ending.then is not Then.END or ending.status != 200
        if broken:
            return self._judge_error(heard.error)
        if heard.error is not None:
            return [f"the client raised {heard.error!r}"]
        wrong = []
        finish = self.column.stops_as if self.stops else "stop"
        if heard.finish != finish:
            wrong.append(f"the client was told {heard.finish!r}, not {finish!r}")
        if not self.stops and heard.words != ending.words:
            wrong.append(f"the client heard {heard.words} words of {ending.words}")
        return wrong

    def _judge_error(self, error: Exception | None) -> list[str]:
        if error is None:
            return ["the client took a broken answer for a whole one"]
        return [] if isinstance(error, OWN_ERRORS) else [f"the client raised {error!r}, which no app expects"]
