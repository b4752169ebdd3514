"""The command line looks all accounts over: statistics, what they lack, what is wrong with them."""

import json
from pathlib import Path

from tests.support.command_line import Tollway


def test_backfill_and_verify_find_what_a_change_of_the_file_left(tollway: Tollway, home: Path) -> None:
    """A3, A6: accounts on a tier that the file no longer has are found, told first, mended once, and then fine."""
    tollway("accounts", "create", "acme", "--tier", "premium")
    tollway("accounts", "create", "beta")
    tollway("subscriptions", "put", "s1", "--account", "beta", "--tier", "premium", "--status", "active")
    file = home / "gateway.yaml"
    file.write_text(file.read_text().replace("premium:", "gold:"))

    wrong = tollway("accounts", "verify")
    dry = tollway("accounts", "backfill", "--dry-run")[1]
    still = tollway("accounts", "verify")[0]
    done = tollway("accounts", "backfill")[1]
    again = tollway("accounts", "backfill")[1]
    left = tollway("accounts", "verify")

    assert wrong[0] == 1
    assert "acme: its tier `premium` is not in the settings" in wrong[1]
    assert "beta: the tier `premium` of its subscription `s1`" in wrong[1]
    assert (dry, still) == ("2 accounts: 1 would be given the default tier\n", 1)
    assert done == "2 accounts: 1 given the default tier\n"
    assert again == "2 accounts: 0 given the default tier\n"
    assert (left[0], "acme" in left[1], "2 accounts, 1 findings" in left[1]) == (1, False, True)
    assert json.loads(tollway("audit", "acme", "--json")[1])["items"][0]["after"]["tier"] == "free"


def test_verify_tells_what_has_no_effect(tollway: Tollway) -> None:
    """A6: an add-on that raises nothing was paid for in vain; where all is well, the exit status says so."""
    tollway("accounts", "create", "acme", "--tier", "premium")
    assert tollway("accounts", "verify")[::2] == (0, "")
    tollway("addons", "add", "acme", "output_tokens", "5")

    assert "raises nothing" in tollway("accounts", "verify")[1]


def test_stats_are_shown(tollway: Tollway) -> None:
    """D10: one command tells subscriptions by tier, churn and refusals; another the accounts of a month."""
    tollway("accounts", "create", "acme")
    tollway("subscriptions", "put", "s1", "--account", "acme", "--tier", "premium", "--status", "active")
    out = tollway("stats", "--days", "7")[1]

    assert "premium                  1" in out
    assert "over in 7 days: 0 subscriptions (0.0%)" in out
    assert json.loads(tollway("stats", "--json")[1])["subscriptions"] == {"premium": 1}
    assert tollway("stats", "--top", "2026-11")[0] == 0
    assert tollway("stats", "--top", "never")[::2] == (
        2,
        "tollway: Expected a day like 2026-11-21 or a month like 2026-11 - at `$.of`\n",
    )
