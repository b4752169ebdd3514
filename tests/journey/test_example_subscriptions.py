"""System A on `config/examples/subscriptions.yaml` as it is: tokens by subscription, row by row.

A real process tree, signed webhooks of Stripe's own objects, an upstream that keeps its own books.
"""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.examples import EXAMPLES, Example, Person, in_one_hour
from tests.support.sdk_upstream import Upstream, said
from tests.support.serving import until
from tests.support.stripe_objects import example, subscription

PRODUCTS = {
    "starter": {"max_tokens_per_month": "50000", "max_banks": "3", "max_storage_gb": "5"},
    "pro": {"max_tokens_per_month": "200000", "max_banks": "10", "max_storage_gb": "50.5", "max_seats": "7"},
    "business": {"max_tokens_per_month": "1000000", "max_banks": "50", "max_storage_gb": "500", "sla": "true"},
}
DAY_S = 86_400

pytestmark = pytest.mark.usefixtures("upstream")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, books: Upstream) -> Iterator[Example]:
    """The example, served, with the three products known."""
    with Example("subscriptions", tmp_path_factory.mktemp("a"), books.port) as served:
        for tier, metadata in PRODUCTS.items():
            learn(served, tier, {"tier": tier, **metadata})
        yield served


def learn(here: Example, name: str, metadata: dict[str, str], kind: str = "product.created") -> None:
    """Stripe tells of a product."""
    here.stripe(kind, example("product", id=f"prod_{name}", name=name, metadata=metadata))


def bought(person: Person, product: str, start_s: int | None = None, **fields: Any) -> dict[str, Any]:
    """The person's subscription as Stripe has it; its month begins now, unless given."""
    begin_s = int(time.time()) if start_s is None else start_s
    fields |= {"customer": f"cus_{person.account}", "metadata": {"account_id": person.account}}
    fields |= {"price": f"price_{product}", "product": f"prod_{product}", "period": (begin_s, begin_s + 30 * DAY_S)}
    return subscription(f"sub_{person.account}", **fields)


def subscribe(person: Person, product: str, start_s: int | None = None) -> None:
    """Stripe tells that the person has bought."""
    person.here.stripe("customer.subscription.created", bought(person, product, start_s))


def at(second: int) -> str:
    """As the usage API tells a moment."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_subscription_tells_all_its_figures(here: Example) -> None:
    """A1: tokens of the period, lifetime, last reset, maximum, add-ons, start and end, as an app shows them; an add-on
    of the old system's largest number and one beyond it count to the token. Whoever paid for more is hurt if not.
    """  # noqa: D205
    person, start_s = here.person(), int(time.time())
    subscribe(person, "pro", start_s)
    here.tollway(f"addons add {person.account} tokens 999999999 --id big-{person.account}")
    here.tollway(f"addons add {person.account} tokens 5000000000 --id bigger-{person.account}")
    assert person.chat().status_code == 200
    until(lambda: person.usage()["lifetime"]["tokens"] == 13)

    told = person.usage()

    assert told["period"] == {
        "start": at(start_s),
        "end": at(start_s + 30 * DAY_S),
        "last_reset": told["period"]["last_reset"],
        "tokens": 13,
        "max_tokens": 200_000,
        "addon_tokens": 5_999_999_999,
        "remaining": 6_000_199_999 - 13,
    }
    assert at(start_s) <= told["period"]["last_reset"] <= told["at"]


def test_old_names_are_taken_and_told(here: Example, tmp_path: Path) -> None:
    """A2: an export under the old names comes in, and an app written for those names reads the same figures again."""
    old = {"$id": "moved", "plan": "pro", "status": "active", "currentPeriodStart": at(int(time.time()) - DAY_S)}
    old |= {"currentPeriodEnd": at(int(time.time()) + 29 * DAY_S)}
    counts = {"maxChatsPerMonth": 180_000, "currentChatsUsed": 1_200, "addonChats": 50, "lifetimeChatsUsed": 9_000}
    file = tmp_path / "old.json"
    file.write_text(json.dumps([old | counts]))

    assert "1 accounts made" in here.tollway(f"import {file}")

    told = here.known("moved").usage("?shape=legacy")
    assert told | counts | {"plan": "pro", "status": "active"} == told
    assert told["currentPeriodStart"] == old["currentPeriodStart"]


def test_a_backfill_is_told_first_and_done_once(here: Example, tmp_path: Path) -> None:
    """A3, A6: accounts of a tier that an operator took out of the file are found by `verify`, counted by a dry run that
    changes nothing, given their defaults once, and work again. Until then they are refused.
    """  # noqa: D205
    before = tmp_path / "before.yaml"
    before.write_text((EXAMPLES / "subscriptions.yaml").read_text().replace("\ntiers:", "\ntiers:\n  legacy: {}"))
    here.tollway("accounts create left-behind --tier legacy", TOLLWAY_FILE=str(before))
    left = here.known("left-behind")
    assert left.chat().status_code == 503

    assert "left-behind: its tier `legacy` is not in the settings" in here.tollway("accounts verify", status=1)
    for line, counted in (
        ("accounts backfill --dry-run", "1 would be given"),
        ("accounts backfill --dry-run", "1 would be given"),
        ("accounts backfill", "1 given"),
        ("accounts backfill", "0 given"),
    ):
        assert f"{counted} the default tier" in here.tollway(line)

    assert here.tollway("accounts verify").endswith("0 findings\n")
    assert left.chat().status_code == 200
    assert left.usage()["tier"] == "free"


@pytest.mark.parametrize(("product", "tokens"), [("starter", 50_000), ("pro", 200_000), ("business", 1_000_000)])
def test_a_product_gives_what_its_metadata_say(here: Example, product: str, tokens: int) -> None:
    """A4: Starter, Pro and Business give their tokens, banks, decimal storage, and what else is a number or a yes."""
    person = here.person()
    subscribe(person, product)

    told, period = person.usage(), person.limit("tokens/period")

    assert (told["tier"], told["kind"], period["limit"]) == (product, "subscribed", tokens)
    said = {
        name: float(text) for name, text in PRODUCTS[product].items() if name not in {"max_tokens_per_month", "sla"}
    }
    assert told["numbers"] == said
    assert told["features"] == ({"sla": True} if product == "business" else {})


def test_a_bare_product_gives_the_defaults(here: Example) -> None:
    """A4: a product nobody described gives 50,000 tokens, 3 banks and 5 GB; its metadata count from the next request
    once they come, for those too who have bought it.
    """  # noqa: D205
    learn(here, "bare", {})
    person = here.person()
    subscribe(person, "bare")
    assert person.limit("tokens/period")["limit"] == 50_000
    assert person.usage()["numbers"] == {"max_banks": 3, "max_storage_gb": 5}

    learn(here, "bare", {"max_tokens_per_month": "70000", "max_storage_gb": "7.25"}, "product.updated")

    assert person.chat().headers["x-ratelimit-limit-tokens"] == "70000"
    assert person.usage()["numbers"] == {"max_banks": 3, "max_storage_gb": 7.25}


def test_created_and_updated_make_and_move_the_subscription(here: Example) -> None:
    """A5: what was used before the purchase is not counted into it; an upgrade inside the period raises the limit and
    keeps what was used; the end gives the free plan back. Each from the next request.
    """  # noqa: D205
    person = here.person()
    assert person.chat().status_code == 200
    until(lambda: person.usage()["lifetime"]["tokens"] == 13)
    start_s = int(time.time()) + 1
    until(lambda: time.time() >= start_s)
    subscribe(person, "starter", start_s)

    told = person.usage()
    assert (told["period"]["tokens"], told["lifetime"]["tokens"]) == (0, 13)
    assert (
        told["subscription"] | {"status": "active", "tier": "starter", "period_start": at(start_s)}
        == told["subscription"]
    )

    assert person.chat().headers["x-ratelimit-limit-tokens"] == "50000"
    until(lambda: person.limit("tokens/period")["used"] == 13)
    later_s = int(time.time()) + 1  # without a key for Stripe's API, later events are those of a later second
    here.stripe("customer.subscription.updated", bought(person, "business", start_s), created=later_s)
    assert person.chat().headers["x-ratelimit-limit-tokens"] == "1000000"
    until(lambda: person.limit("tokens/period")["used"] == 26)

    over = bought(person, "business", start_s, status="canceled", ended_at=later_s)
    here.stripe("customer.subscription.deleted", over, created=later_s + 1)
    assert person.chat().headers["x-ratelimit-limit-tokens"] == "2000"


def test_verify_lists_what_is_wrong_with_stripe(here: Example) -> None:
    """A6: a product without metadata, one with a typo, and a webhook without its effect, each on a line that says what
    is wrong; mended, the lines are gone. An operator who can't see this learns of it from customers.
    """  # noqa: D205
    learn(here, "untold", {})
    learn(here, "typo", {"tier": "pro", "max_banks": "many"})
    stray = subscription("sub_stray", customer="cus_stray", metadata={})
    here.stripe("customer.subscription.created", stray, state="parked", event_id="evt_stray")

    told = here.tollway("stripe verify", status=1)
    assert "product prod_untold (untold): no tier, and no max_tokens_per_month, max_banks, max_storage_gb;" in told
    assert "product prod_typo (typo): its max_banks is not a number" in told
    assert "event evt_stray (customer.subscription.created) parked" in told

    learn(here, "typo", {"tier": "pro", "max_banks": "9"}, "product.updated")
    here.tollway(f"stripe link cus_stray {here.person().account}")
    told = here.tollway("stripe verify", status=None)
    assert "prod_typo" not in told
    assert "evt_stray" not in told


def test_every_migration_goes_back_and_forth(here: Example, tmp_path: Path) -> None:
    """A7: a ledger that came over goes back to the schema of its accounts and plans, and forth again, with what it
    held: no newer release is a way without return.
    """  # noqa: D205
    own: Any = {"TOLLWAY_DATA_DIR": str(tmp_path / "data")}
    file = tmp_path / "old.jsonl"
    row = {"id": "kept", "plan": "pro", "status": "active", "period_start": "2026-01-01", "period_end": "2999-01-01"}
    file.write_text(json.dumps(row | {"tokens_used": 77, "addon_tokens": 5}))
    here.tollway(f"import {file}", **own)
    before = here.tollway("subscriptions show import/kept", **own)

    assert "ledger 0002" in here.tollway("db downgrade 0002 --yes", **own)
    here.tollway("db upgrade", **own)

    assert here.tollway("subscriptions show import/kept", **own) == before
    status = here.tollway("db status", **own)
    assert "to come" not in status
    assert "changed" not in status


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@in_one_hour
def test_subscribe_chat_and_read_the_usage(here: Example, upstream: Upstream, streamed: bool) -> None:
    """A8: subscribe, webhook, tokens granted, chat, and usage rises by exactly what the upstream reported: in the
    answer's own count, the usage API, the event, the command line, and between counters and ledger. Who sells tokens
    is hurt by each one that is over or missing.
    """  # noqa: D205
    person = here.person()
    asked = len(upstream.asked)
    refused = person.chat(max_tokens=3_000)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    assert len(upstream.asked) == asked
    subscribe(person, "pro")
    granted = person.limit("tokens/period")
    assert (granted["used"], granted["limit"]) == (0, 200_000)

    upstream.turns[:] = [said("a", " b", input_tokens=1_234, output_tokens=567)]
    answer = person.chat(max_tokens=3_000, stream=streamed)

    assert answer.status_code == 200
    assert len(upstream.asked) == asked + 1
    assert '"input_tokens":1234,"output_tokens":567' in answer.text if streamed else answer.json()["usage"]
    until(lambda: person.usage()["lifetime"]["tokens"] == 1_801)
    told = person.usage()
    assert person.limit("tokens/period")["used"] == told["period"]["tokens"] == told["today"]["tokens"] == 1_801
    assert told["period"]["remaining"] == 200_000 - 1_801
    event = person.event(answer.headers["x-request-id"])
    assert (event["input_tokens"], event["output_tokens"], event["counted_by"]) == (1_234, 567, "upstream")
    printed = json.loads(here.tollway(f"usage {person.account} --json"))
    assert [(one["used"], one["settled"]) for one in printed["limits"]] == [(1_801, 1_801)]
    assert person.account not in here.tollway("db verify", status=None)
