"""A tier's windows, and how they are told in headers."""

from zoneinfo import ZoneInfo

import msgspec

from gateway.dialects.dialect import LimitFields
from gateway.domain.decisions import Reservation, judge
from gateway.domain.limits import Limit, Tier, Unit, Window
from gateway.domain.periods import Period
from gateway.domain.usage import Usage
from gateway.snapshot import Plan

NOON_S = 1_795_262_400  # 2026-11-21 12:00:00 UTC
TIER = Tier(
    "t",
    (
        Limit(Unit.REQUESTS, Window.HOUR, 50),
        Limit(Unit.TOKENS, Window.DAY, 1000),
        Limit(Unit.TOKENS, Window.HOUR, 900),
        Limit(Unit.OUTPUT_TOKENS, Window.DAY, 7),
    ),
)


def told(used: tuple[int, ...], now_s: int, names: LimitFields = LimitFields.OPENAI) -> dict[str, str]:
    """The headers as text."""
    fields = Plan(TIER).frame(now_s).headers(used, now_s, names)
    return {name.decode(): value.decode() for name, value in fields}


def test_every_limit_is_told() -> None:
    """D5: the list form names each limit with what is left and when it resets, and the policy with its span."""
    headers = told((1, 10, 10, 9), NOON_S + 600)
    assert headers["ratelimit-policy"] == (
        '"requests/hour";q=50;w=3600, "tokens/day";q=1000;w=86400, "tokens/hour";q=900;w=3600, '
        '"output_tokens/day";q=7;w=86400'
    )
    assert headers["ratelimit"] == (
        '"requests/hour";r=49;t=3000, "tokens/day";r=990;t=42600, "tokens/hour";r=890;t=3000, '
        '"output_tokens/day";r=0;t=42600'
    )


def test_the_tightest_limit_of_a_unit_speaks_for_it() -> None:
    """D5: clients pace themselves by these; the looser of two limits would let them run into the other."""
    hour, day = told((1, 10, 10, 0), NOON_S + 600), told((1, 500, 10, 0), NOON_S + 600)
    assert (hour["x-ratelimit-limit-tokens"], hour["x-ratelimit-remaining-tokens"]) == ("900", "890")
    assert hour["x-ratelimit-reset-tokens"] == "3000s"
    assert (day["x-ratelimit-limit-tokens"], day["x-ratelimit-remaining-tokens"]) == ("1000", "500")
    assert day["x-ratelimit-reset-tokens"] == "42600s"
    assert hour["x-ratelimit-remaining-requests"] == "49"
    assert "x-ratelimit-limit" not in hour


def test_plain_routes_are_told_the_bare_names_too() -> None:
    """D5: clients of other APIs look for these."""
    headers = told((1, 0, 0, 0), NOON_S + 600, LimitFields.BARE)
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"], headers["x-ratelimit-reset"]) == (
        "50",
        "49",
        "3000",
    )


def test_anthropics_clients_are_told_under_its_names() -> None:
    """D5, F3: its names, each unit's own, and resets as times: what its clients pace themselves by."""
    headers = told((1, 10, 10, 9), NOON_S + 600, LimitFields.ANTHROPIC)
    assert {name: value for name, value in headers.items() if not name.startswith("ratelimit")} == {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-11-21T13:00:00Z",
        "anthropic-ratelimit-tokens-limit": "900",
        "anthropic-ratelimit-tokens-remaining": "890",
        "anthropic-ratelimit-tokens-reset": "2026-11-21T13:00:00Z",
        "anthropic-ratelimit-output-tokens-limit": "7",
        "anthropic-ratelimit-output-tokens-remaining": "0",
        "anthropic-ratelimit-output-tokens-reset": "2026-11-22T00:00:00Z",
    }


def test_what_is_rendered_ahead_follows_the_clock() -> None:
    """A second later everything resets a second sooner, and past the hour it is another window."""
    plan = Plan(TIER)
    frame = plan.frame(NOON_S)
    first = dict(frame.headers((0, 0, 0, 0), NOON_S, LimitFields.OPENAI))
    later = dict(frame.headers((0, 0, 0, 0), NOON_S + 1, LimitFields.OPENAI))
    assert (first[b"x-ratelimit-reset-requests"], later[b"x-ratelimit-reset-requests"]) == (b"3600s", b"3599s")
    assert plan.frame(NOON_S + 3599) is frame
    assert plan.frame(NOON_S + 3600).lines[0].start_s == NOON_S + 3600


def test_a_day_begins_where_the_tier_lives() -> None:
    """C1: in Kathmandu (UTC+5:45) midnight is at 18:15 UTC; a frame ends there although no hour does."""
    tier = Tier("t", (Limit(Unit.REQUESTS, Window.DAY, 5),), time_zone=ZoneInfo("Asia/Kathmandu"))
    plan = Plan(tier)
    before = plan.frame(NOON_S + 6 * 3600)
    assert before.lines[0].end_s == NOON_S + 6 * 3600 + 900
    assert plan.frame(NOON_S + 6 * 3600 + 900).lines[0].start_s == NOON_S + 6 * 3600 + 900


def test_amounts_follow_the_tiers_order() -> None:
    """What is charged to a limit is what its unit counts."""
    assert Plan(TIER).amounts(1, Usage(30, 12)) == (1, 42, 42, 12)


def test_a_tier_without_limits_tells_nothing() -> None:
    """An unlimited tier has nothing to count down."""
    plan = Plan(Tier("free", ()))
    assert plan.frame(NOON_S).headers((), NOON_S, LimitFields.BARE) == []


def test_a_billing_period_is_told_by_its_limits_name() -> None:
    """A1: what is told callers is `tokens/period`; that its counter is named by its start is nobody's business."""
    limit = Limit(Unit.TOKENS, Window.PERIOD, 10)
    plan = Plan(Tier("pro", (limit,), period=Period(1_000, 9_000)))
    frame = plan.frame(2_000)
    line = msgspec.structs.replace(frame.lines[0], amount=11)

    assert (line.name, line.start_s, line.end_s) == ("tokens/period@1000", 1_000, 9_000)
    assert b'"tokens/period";r=7;t=7000' in dict(frame.headers((3,), 2_000, LimitFields.OPENAI)).values()
    refused = judge(Reservation("r", "acme", 1, (line,)), 2_000_000, (0,), 0)
    assert refused is not None
    assert refused.limit == "tokens/period"
