"""The command line on what accounts have bought, and on who changed it."""

import asyncio
import json
import os
import pwd
import sqlite3
from contextlib import closing
from pathlib import Path

from gateway.domain.audit import SYSTEM
from gateway.domain.entitlements import Grant
from gateway.domain.limits import Unit
from gateway.domain.subscriptions import Status, Subscription
from gateway.ledger.ledger import Ledger
from tests.support.command_line import Tollway
from tests.support.ledgers import url_of


def test_every_change_names_who_made_it(tollway: Tollway, home: Path) -> None:
    """E8: what is done at the command line stands in the audit under the user's own name."""
    tollway("accounts", "create", "acme")
    key = tollway("keys", "create", "acme")[1].strip()
    tollway("accounts", "set-tier", "acme", "premium")
    tollway("accounts", "suspend", "acme")
    tollway("keys", "revoke", key[3:15])

    who = f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    (ledger,) = home.rglob("ledger.db")
    with closing(sqlite3.connect(ledger)) as connection:
        rows = connection.execute("SELECT action, who FROM audit ORDER BY row_id").fetchall()

    assert rows == [(action, who) for action in ("account", "key", "account", "account", "key")]


def test_usage_shows_what_was_bought(tollway: Tollway, home: Path) -> None:
    """D9: an operator sees the limits that count, of subscription and add-ons, not those of the account's own tier."""
    tollway("accounts", "create", "acme")

    async def buy() -> None:
        ledger = Ledger.open(url_of(home / "data" / "ledger.db"))
        await ledger.upsert_subscription(Subscription("s", "acme", "premium", Status.ACTIVE), SYSTEM, 1)
        await ledger.add_grant(Grant("g", "acme", Unit.REQUESTS, 7), SYSTEM, 1)
        await ledger.close()

    asyncio.run(buy())
    report = json.loads(tollway("usage", "acme", "--json")[1])

    assert report["tier"] == "premium"
    assert [(limit["limit"], limit["maximum"]) for limit in report["limits"]] == [("requests/hour", 507)]
