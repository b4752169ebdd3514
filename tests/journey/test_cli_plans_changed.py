"""The command line changes what accounts have bought and been given, and explains what it comes to."""

import json
from pathlib import Path

import pytest

from tests.support.command_line import Tollway


def test_explain_tells_an_operator_why(tollway: Tollway) -> None:
    """D9: from one command an operator reads tier, reason, limits and what a request would be told."""
    tollway("accounts", "create", "acme")
    put = ("--account", "acme", "--tier", "premium", "--status", "cancelled", "--period-start", "2026-01-01")
    assert tollway("subscriptions", "put", "s1", *put, "--period-end", "2999-01-01")[0] == 0
    tollway("addons", "add", "acme", "requests", "7", "--id", "pack-1")
    tollway("overrides", "set", "acme", "--limit", "requests/hour=none", "--limit", "requests/day=1_000")

    status, out, err = tollway("accounts", "explain", "acme")
    told = json.loads(tollway("accounts", "explain", "acme", "--json")[1])

    assert (status, err) == (0, "")
    for words in ("tier premium", "cancelled, until 2999-01-01", "requests/hour: unbounded", "1,007", "200 admitted"):
        assert words in out, out
    assert (told["tier"], told["next_tier"], told["next_change_at"]) == ("premium", "free", "2999-01-01T00:00:00Z")
    assert told["verdict"]["admitted"] is True


def test_an_addon_that_is_there_is_said_to_be(tollway: Tollway) -> None:
    """E8: who repeats an id, or takes one that is in use, reads that nothing came to it, and what stands there."""
    tollway("accounts", "create", "acme")
    first = tollway("addons", "add", "acme", "requests", "7", "--id", "pack-1")
    status, again, _ = tollway("addons", "add", "acme", "requests", "9", "--id", "pack-1")

    assert (first[0], status) == (0, 0)
    assert "nothing is added" not in first[1]
    assert again == f"pack-1 was there already, as below; nothing is added\n{first[1]}"


def test_explain_tells_a_refusal(tollway: Tollway) -> None:
    """D9: the operator reads what the customer reads."""
    tollway("accounts", "create", "acme")
    tollway("overrides", "set", "acme", "--limit", "tokens/day=0", "--concurrency", "none", "--feature", "x=yes")
    refused = tollway("accounts", "explain", "acme")[1]
    tollway("overrides", "clear", "acme")

    assert "429 rate_limit_exceeded" in refused
    assert "unbounded; counts" in refused
    assert "x yes" in refused
    assert "200 admitted" in tollway("accounts", "explain", "acme")[1]


def test_explain_says_when_redis_is_silent(tollway: Tollway, without_redis: Path) -> None:
    """D9: counts that may be old are not shown as live ones."""
    tollway("accounts", "create", "acme")

    told = tollway("accounts", "explain", "acme")[1]
    assert "unknown, as Redis does not answer, at most 5; counts are the ledger's" in told


def test_explain_knows_that_nothing_runs(tollway: Tollway) -> None:
    """D9: of an account that asked for nothing yet, none is what runs; nothing is "unknown" while Redis answers."""
    tollway("accounts", "create", "acme")

    assert "requests under way: 0, at most 5; counts are the ledger's" in tollway("accounts", "explain", "acme")[1]


def test_a_subscription_is_put_listed_and_ended(tollway: Tollway) -> None:
    """E2: the whole life of a plan given by hand, at the command line; what isn't an own account's isn't listed."""
    for account in ("acme", "other"):
        tollway("accounts", "create", account)
    for name, account in (("s1", "acme"), ("s2", "other")):
        put = ("--account", account, "--tier", "premium", "--status", "active", "--limit", "tokens/month=5")
        assert tollway("subscriptions", "put", name, *put, "--months", "12", "--price-id", "p1")[0] == 0
    shown = json.loads(tollway("subscriptions", "show", "s1")[1])
    mine = tollway("subscriptions", "list", "--account", "acme")[1]
    ended = tollway("subscriptions", "end", "s1", "--at", "2020-01-01")[1]

    assert (shown["terms"], shown["interval"]["months"], shown["price_id"]) == (
        {"limits": {"tokens/month": 5}},
        12,
        "p1",
    )
    assert ("s1" in mine, "s2" in mine) == (True, False)
    assert "s2" in tollway("subscriptions", "list")[1]
    assert "2020-01-01 00:00 UTC" in ended
    assert "tier free" in tollway("accounts", "explain", "acme")[1]


def test_the_audit_tells_what_changed(tollway: Tollway) -> None:
    """E8: newest first, what is other than before, and nothing of other accounts."""
    tollway("accounts", "create", "acme")
    tollway("accounts", "create", "other")
    tollway("accounts", "set-tier", "acme", "premium")
    out = tollway("audit", "acme")[1]
    whole = json.loads(tollway("audit", "--limit", "1", "--json")[1])

    assert out.splitlines()[1].endswith('{"tier":"premium","version":2}')
    assert "other" not in out
    assert [one["account"] for one in whole["items"]] == ["acme"]


def test_tiers_are_shown_as_they_are_in_force(tollway: Tollway) -> None:
    """D9: defaults are shown as well."""
    out = tollway("tiers")[1]

    assert "free (default)" in out
    assert "50 requests/hour, 1,000 tokens/day" in out


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("addons", "add", "acme", "euros", "5"), "`$.unit`"),
        (("addons", "add", "acme", "tokens", "0"), "`amount`"),
        (("addons", "add", "acme", "tokens", "5", "--ends-at", "soon"), "2026-12-01"),
        (("overrides", "set", "acme", "--limit", "tokens"), "a name, = and a value"),
        (("overrides", "set", "acme", "--limit", "tokens/decade=5"), "tokens/decade"),
        (("overrides", "set", "acme", "--limit", "tokens/day=lots"), "'lots'"),
        (("overrides", "set", "acme", "--feature", "x=maybe"), "'maybe'"),
        (("subscriptions", "put", "s", "--account", "acme", "--tier", "free", "--status", "gold"), "'gold'"),
        (("subscriptions", "put", "s", "--account", "acme", "--tier", "gold", "--status", "active"), "free, premium"),
        (("subscriptions", "show", "s"), "no subscription `s`"),
        (("accounts", "explain", "nobody"), "nobody"),
        (("audit", "--limit", "0"), "`$.limit`"),
    ],
)
def test_wrong_input_is_told(tollway: Tollway, words: tuple[str, ...], names: str) -> None:
    """F7: each mistake ends with status 2 and one line that says what is wrong."""
    tollway("accounts", "create", "acme")
    status, out, err = tollway(*words)

    assert (status, out) == (2, "")
    assert names in err, err
