"""The verdict on a run: what upstream and callers saw, held against the ledger and the live counters.

Each function returns the broken promises as texts; an empty list is a clean bill.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from gateway.domain.limits import Tier, Unit
from gateway.domain.usage import CountedBy, Outcome, UsageEvent
from gateway.domain.windows import bounds
from tests.support.truth_story import Ending, Story

MOST_ESTIMATED = 2.5
"""Times the truth that an estimate may come to: the ratio's first deviation is half its mean, three are added."""


def books(stories: Iterable[Story], events: Iterable[UsageEvent]) -> list[str]:
    """One event for each request that reached the upstream, and each says what is true."""
    by_id: defaultdict[str, list[UsageEvent]] = defaultdict(list)
    for event in events:
        by_id[event.request_id].append(event)
    wrong: list[str] = []
    for story in stories:
        found = by_id.pop(story.request_id, [])
        if not story.arrivals:
            if found and not (found[0].outcome is Outcome.CLIENT_GONE and story.left_s):
                wrong.append(f"{story.name}: never reached the upstream, yet {found}")
        elif len(found) != 1:
            wrong.append(f"{found or 'no event'} of {story}")
        elif not _is_true(story, found[0]):
            wrong.append(f"{found[0]} of {story}")
    for (event,) in by_id.values():
        # Its caller left before it could learn the request's id.
        if event.outcome is not Outcome.CLIENT_GONE or event.output_tokens:
            wrong.append(f"nobody asked for {event}")
    return wrong


def _is_true(story: Story, event: UsageEvent) -> bool:
    used = (event.requests, event.input_tokens, event.output_tokens)
    if story.ending is Ending.REFUSED:
        return used == (1, 0, 0)
    if story.unanswered:
        return used == (0, 0, 0)
    if event.counted_by is CountedBy.UPSTREAM:
        true = (1, story.prompt_tokens, story.tokens + story.hidden, story.cached, story.hidden)
        whole = story.ending is Ending.WHOLE and story.reports_usage
        return whole and (*used, event.cached_tokens, event.reasoning_tokens) == true
    outcomes = {Ending.CUT: Outcome.UPSTREAM_CUT, Ending.ERROR_EVENT: Outcome.UPSTREAM_ERROR, Ending.WHOLE: Outcome.OK}
    if event.outcome is not outcomes[story.ending] and not (story.left_s and event.outcome is Outcome.CLIENT_GONE):
        return False
    if story.ending is Ending.WHOLE and story.reports_usage and event.outcome is Outcome.OK:
        return False
    seen = story.tokens if event.outcome is Outcome.OK else story.seen
    return (
        event.requests == 1
        and story.prompt_tokens <= event.input_tokens <= MOST_ESTIMATED * story.prompt_tokens + 1
        and seen <= event.output_tokens <= MOST_ESTIMATED * story.sent + 1
    )


def windows(tier: Tier, stories: Iterable[Story], events: Iterable[UsageEvent]) -> list[str]:
    """No window of an account's past its limit, by the upstream's count and by the answers that callers got.

    Nor by the ledger's, where an answer that nobody counted is taken to be no larger than what was held for it. What
    an upstream made for a caller who had left, and nobody saw, is beyond the bound.
    """
    true = {story.request_id: story for story in stories if story.arrivals}
    spent: defaultdict[tuple[str, int, str], int] = defaultdict(int)
    for event in events:
        story = true.get(event.request_id)
        for limit in tier.limits:
            start_s, _ = bounds(limit.window, event.admitted_ms // 1000, tier.time_zone)
            if limit.unit is Unit.REQUESTS:
                spent[limit.name, start_s, "upstream"] += int(
                    story is not None and story.status == 200 and not story.unanswered
                )
                spent[limit.name, start_s, "ledger"] += event.requests
            else:
                spent[limit.name, start_s, "upstream"] += _true_tokens(story, event) if story is not None else 0
                counted = event.input_tokens + event.output_tokens
                spent[limit.name, start_s, "ledger"] += min(counted, event.estimated_tokens)
    maximum = {limit.name: limit.maximum for limit in tier.limits}
    return [
        f"{name} from {start_s}: {used} of {maximum[name]} by the {counted_by}'s count"
        for (name, start_s, counted_by), used in spent.items()
        if used > maximum[name]
    ]


def _true_tokens(story: Story, event: UsageEvent) -> int:
    return story.prompt_tokens + story.seen if event.outcome is Outcome.CLIENT_GONE else story.true_tokens


def most_at_once(stories: Iterable[Story]) -> int:
    """The most requests that ran upstream at the same moment."""
    moves = sorted(move for story in stories if story.arrivals for move in ((story.arrived_s, 1), (story.until_s, -1)))
    running = most = 0
    for _, step in moves:
        running += step
        most = max(most, running)
    return most


def sums(events: Iterable[UsageEvent]) -> dict[str, list[int]]:
    """[events, requests, input, output, cached, reasoning] by account, from the events themselves."""
    total: defaultdict[str, list[int]] = defaultdict(lambda: [0] * 6)
    for event in events:
        row = (1, event.requests, event.input_tokens, event.output_tokens, event.cached_tokens, event.reasoning_tokens)
        total[event.account_id] = [held + more for held, more in zip(total[event.account_id], row, strict=True)]
    return dict(total)


def live(tier: Tier, counters: Mapping[str, int], events: Iterable[UsageEvent]) -> list[str]:
    """Nothing runs, and each live counter is what the ledger's events of its window come to."""
    wrong = [] if counters.get("n", 0) == 0 else [f"{counters['n']} still run"]
    known = list(events)
    for limit in tier.limits:
        start_s = counters.get(f"s:{limit.name}", 0)
        _, end_s = bounds(limit.window, start_s, tier.time_zone)
        inside = [event for event in known if start_s * 1000 <= event.admitted_ms < end_s * 1000]
        used = sum(
            event.requests if limit.unit is Unit.REQUESTS else event.input_tokens + event.output_tokens
            for event in inside
        )
        if counters.get(f"u:{limit.name}", 0) != used:
            wrong.append(f"{limit.name}: {counters} where the ledger has {used}")
    return wrong
