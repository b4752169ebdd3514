"""Stripe's own example objects, made out for a test, and webhooks signed as Stripe signs them.

The examples are of Stripe's openapi repository (`tests/data/stripe/README.md`); signatures are made by its library.
"""

import itertools
import json
import time
from pathlib import Path
from typing import Any

from stripe import WebhookSignature

SECRET = "whsec_of_a_test"

_EXAMPLES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "stripe" / "examples.json").read_text(encoding="utf-8")
)
_counter = itertools.count(1)


def example(kind: str, **fields: Any) -> dict[str, Any]:
    """Stripe's example of a kind of object, with `fields` in place of its own."""
    return {**json.loads(json.dumps(_EXAMPLES[kind])), **fields}


def subscription(
    subscription_id: str = "sub_1",
    *,
    price: str = "price_pro",
    product: str = "prod_pro",
    period: tuple[int, int] | None = None,
    old: bool = False,
    **fields: Any,
) -> dict[str, Any]:
    """A subscription of `cus_1`, which says that it is the account acme's. `old`: in the shape before 2025-03-31."""
    start, end = period or (int(time.time()) - 3600, int(time.time()) + 3600)
    given = {
        "status": "active",
        "customer": "cus_1",
        "metadata": {"account_id": "acme"},
        "cancel_at": None,
        "canceled_at": None,
        "ended_at": None,
        "trial_end": None,
        "billing_cycle_anchor": start,
    }
    made = example("subscription", id=subscription_id, **{**given, **fields})
    item = made["items"]["data"][0]
    item["price"] |= {"id": price, "product": product}
    placed = made if old else item
    for one in (made, item):
        one.pop("current_period_start", None)
        one.pop("current_period_end", None)
    placed |= {"current_period_start": start, "current_period_end": end}
    return made


def event(kind: str, about: dict[str, Any], *, created: int | None = None, event_id: str = "") -> dict[str, Any]:
    """An event about an object."""
    return example(
        "event",
        id=event_id or f"evt_{next(_counter)}",
        type=kind,
        created=int(time.time()) if created is None else created,
        data={"object": about},
    )


def signed(told: dict[str, Any], *secrets: str, at_s: int | None = None) -> tuple[bytes, dict[str, str]]:
    """The body and headers of a webhook."""
    body = json.dumps(told, indent=2)
    moment = int(time.time()) if at_s is None else at_s
    made = [WebhookSignature.generate_signature_header(body, one, moment) for one in secrets or (SECRET,)]
    header = ",".join([made[0], *(one.partition(",")[2] for one in made[1:])])
    return body.encode(), {"stripe-signature": header, "content-type": "application/json; charset=utf-8"}
