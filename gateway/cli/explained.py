"""An explanation of an account, for people."""

from gateway.cli.moment import shown
from gateway.cli.table import table
from gateway.console.admin_answers import Explanation, LimitExplained


def described(told: Explanation) -> str:
    """Why the tier, then each limit, then what was bought and given, then what a request would be told."""
    state = ", suspended" if told.suspended else ""
    parts = [
        f"account {told.account}{state}: tier {told.tier}, as {told.reason} (its own tier is {told.own_tier})",
        _next(told),
        "",
        table(
            ("LIMIT", "TIER", "TERMS", "OVERRIDE", "ADD-ONS", "LIMIT NOW", "USED", "REMAINING", "RESETS"),
            [_limit(limit) for limit in told.limits],
        ),
        *[f"{name}: unbounded by its terms or overrides" for name in told.unbounded],
        "",
        _running(told),
        *_bought(told),
        "",
        f"A request now: {told.verdict.status} {told.verdict.code or 'admitted'}. {told.verdict.message}",
    ]
    return "\n".join(parts)


def _next(told: Explanation) -> str:
    if told.next_change_at is None:
        return "nothing changes unless somebody changes it"
    return f"changes at {shown(told.next_change_at)}, to tier {told.next_tier}"


def _limit(limit: LimitExplained) -> tuple[str | int, ...]:
    said = ["-" if maximum is None else f"{maximum:,}" for maximum in (limit.tier, limit.terms, limit.override)]
    return (
        limit.name,
        *said,
        limit.addons,
        limit.limit,
        limit.used,
        limit.remaining,
        shown(limit.resets_at, "never"),
    )


def _running(told: Explanation) -> str:
    bound = "unbounded" if told.concurrency is None else f"at most {told.concurrency:,}"
    running = "unknown, as Redis does not answer" if told.running is None else f"{told.running:,}"
    return f"requests under way: {running}, {bound}; counts are the {told.counted_by}'s"


def _bought(told: Explanation) -> list[str]:
    lines = [
        f"subscription {one.id} ({one.source}): {one.tier}, {one.status}, period {shown(one.period_start)} to"
        f" {shown(one.period_end)}, expires {shown(one.expires_at, 'never')}"
        for one in told.subscriptions
    ]
    lines += [
        f"add-on {one.id} ({one.source}): {one.amount:,} {one.unit}, ends {shown(one.ends_at, 'never')}"
        for one in told.addons
    ]
    said = [f"{name} {value:g}" for name, value in told.numbers.items()]
    said += [f"{name} {'yes' if value else 'no'}" for name, value in told.features.items()]
    return [*lines, *([f"entitlements: {', '.join(said)}"] if said else [])]
