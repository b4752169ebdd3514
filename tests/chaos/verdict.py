"""The verdict on a run of chaos: the ledger held against what the upstream sent and what callers saw.

Where a process was killed in the middle of an answer, its usage is what was last told of it: at least the input, at
most the truth. Nothing else is forgiven, save what FLUSHALL took before it could reach the ledger.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.domain.limits import Limit, Unit
from gateway.domain.usage import CountedBy, Outcome, UsageEvent
from gateway.domain.windows import bounds
from tests.chaos.stage import CALLERS, Stage
from tests.support.truth_story import STATUSES, Ending, Story
from tests.support.truth_verdict import MOST_ESTIMATED, live, sums

Used = tuple[int, int, int]
"""Requests, input and output tokens."""

NOTHING: Used = (0, 0, 0)
SHOWN_AT_MOST = 12
LOST_WITH_A_FLUSH_S = 3.0
ON_THE_WAY_S = 1.0
"""From the reservation to the upstream, on a busy machine."""


@dataclass(slots=True)
class Verdict:
    """What was found. `forgiven`: requests whose usage FLUSHALL took."""

    events: int = 0
    forgiven: int = 0
    wrong: list[str] = field(default_factory=list)


async def verdict(stage: Stage) -> Verdict:
    """Judge a stage at rest."""
    found = Verdict()
    known: list[UsageEvent] = []
    for account, stories in stage.stories.items():
        events = await stage.ledger.recent_events(account, 100_000)
        known += events
        _books(stage, stories, events, found)
        _windows(stage, account, stories, events, found)
        counters = await stage.counters(account)
        if "v" in counters:
            found.wrong += [f"{account}: {text}" for text in live(stage.tiers[account], counters, events)]
    found.events = len(known)
    for table in ("usage_hourly", "usage_daily"):
        summed = await stage.sums(table)
        if summed != sums(known):
            found.wrong.append(f"{table}: {summed} where the events come to {sums(known)}")
    set_aside = await stage.set_aside()
    if set_aside:
        found.wrong.append(f"{set_aside} payloads were set aside")
    found.wrong += [f"the upstream was asked for {name}, which nobody sent" for name in stage.upstream.unknown]
    return found


def _books(stage: Stage, stories: Sequence[Story], events: Sequence[UsageEvent], found: Verdict) -> None:
    by_id: defaultdict[str, list[UsageEvent]] = defaultdict(list)
    for event in events:
        by_id[event.request_id.removesuffix("/late")].append(event)
    for story in stories:
        mine = by_id.pop(story.request_id, [])
        if not mine and story.arrivals:
            if _flushed(stage, story):
                found.forgiven += 1
            else:
                found.wrong.append(f"LOST {story}")
        elif mine and (text := _untrue(story, mine)):
            found.wrong.append(f"{text}: {mine} of {story}")
    for mine in by_id.values():
        # Their callers never learned the id: nothing had reached the upstream.
        if sum(event.output_tokens for event in mine) > 0:
            found.wrong.append(f"nobody asked for {mine}")


def _flushed(stage: Stage, story: Story) -> bool:
    """Whether a FLUSHALL may have taken the request's hold or its event."""
    ended_s = max(story.ended_s, story.left_s, story.arrived_s)
    reserved_s = story.arrived_s - ON_THE_WAY_S
    return any(reserved_s <= at_s <= ended_s + LOST_WITH_A_FLUSH_S for at_s in stage.flushes_s)


def _used(events: Sequence[UsageEvent]) -> Used:
    return (
        sum(event.requests for event in events),
        sum(event.input_tokens for event in events),
        sum(event.output_tokens for event in events),
    )


def _untrue(story: Story, events: Sequence[UsageEvent]) -> str:
    """What is wrong with the events of one request; empty where they are true."""
    first = [event for event in events if not event.request_id.endswith("/late")]
    late = [event for event in events if event.request_id.endswith("/late")]
    if len(first) != 1 or len(late) > 1 or (late and first[0].outcome is not Outcome.REAPED):
        return "DOUBLED"
    last, used = events[0] if len(events) == 1 else late[0], _used(events)
    if not story.arrivals:
        return "output of what never reached the upstream" if used[2] else ""
    if story.ending in STATUSES or story.ending is Ending.SHUT or (story.ending is Ending.CUT and not story.streamed):
        return "" if used[2] == 0 and used[0] <= 1 else "usage of what was not answered"
    if last.counted_by is CountedBy.UPSTREAM:
        true = 1, story.prompt_tokens, story.tokens + story.hidden
        return "" if used == true else f"counted as {used}, told {true}"
    if story.whole and story.ending is Ending.WHOLE and story.reports_usage and last.outcome is not Outcome.REAPED:
        return "estimated, where its caller read the usage"
    if used == NOTHING:
        return "given back, though its caller saw some of it" if story.seen else ""
    return _beyond(story, last, used)


def _beyond(story: Story, last: UsageEvent, used: Used) -> str:
    """What is wrong with an estimate: not below what was seen, save a killed process's, nor far above the truth."""
    least = 0 if last.outcome is Outcome.REAPED else story.seen
    # The upstream notes a token once it is written and paused over: one more may have gone out.
    most = MOST_ESTIMATED * (story.sent + 1) + 1
    if used[0] != 1 or not story.prompt_tokens <= used[1] <= MOST_ESTIMATED * story.prompt_tokens + 1:
        return "input"
    return "" if least <= used[2] <= most else f"output {used[2]} not within {least} and {most}"


def _windows(
    stage: Stage, account: str, stories: Sequence[Story], events: Sequence[UsageEvent], found: Verdict
) -> None:
    """No window past its limit, by the ledger and by the upstream's count of what was settled."""
    tier = stage.tiers[account]
    true = {story.request_id: story for story in stories if story.arrivals}
    for limit in tier.limits:
        spent: defaultdict[tuple[int, str], int] = defaultdict(int)
        for event in events:
            start_s, _ = bounds(limit.window, event.admitted_ms // 1000, tier.time_zone)
            held = event.requests if limit.unit is Unit.REQUESTS else event.input_tokens + event.output_tokens
            spent[start_s, "ledger"] += held if limit.unit is Unit.REQUESTS else min(held, event.estimated_tokens)
            spent[start_s, "upstream"] += _sent(limit, true.get(event.request_id), event)
        most = limit.maximum + stage.overshoot(account, limit)
        if stage.flushes_s:
            # The holds of what ran at that moment are gone, and are charged in full as it ends.
            held = 1 if limit.unit is Unit.REQUESTS else max((event.estimated_tokens for event in events), default=0)
            most += len(stage.flushes_s) * CALLERS * held
        found.wrong += [
            f"OVER {account} {limit.name} from {start_s}: {used} of {most} by the {by}'s count"
            for (start_s, by), used in spent.items()
            if used > most
        ]


def _sent(limit: Limit, story: Story | None, event: UsageEvent) -> int:
    """By the upstream's count, as far as anybody who was alive could know it."""
    if story is None or event.outcome in {Outcome.REAPED, Outcome.CLIENT_GONE, Outcome.FAULT}:
        return 0
    if limit.unit is Unit.REQUESTS:
        return int(story.status == 200 and not story.unanswered)
    return story.true_tokens if story.arrivals == 1 else 0
