"""Add-ons that are paid for once, by checkout, and what a refund takes back of them.

The checkout's metadata say what was bought: `addon_tokens` (or another unit) and, if it ends, `addon_days`. The grant's
id is the payment, so that a refund of the payment finds it. Refunds tell all that was given back so far: what is taken
back is that share of the grant, less what was taken before, so that the order and the number of tellings don't matter.
"""

import re

import msgspec

from gateway.billing.stripe_objects import Charge, CheckoutSession, id_of, texts
from gateway.domain.audit import Actor
from gateway.domain.entitlements import Grant
from gateway.domain.limits import MAXIMUM, Unit
from gateway.ledger.database import Connection
from gateway.ledger.grants import known_grant, put_grant, taken_back

DAY_S = 86_400


def grant_of(session: CheckoutSession, account_id: str, now_s: int) -> Grant | None:
    """What a paid checkout bought, None where it names no add-on. Raises ValueError for one that can't be read."""
    metadata = texts(session.metadata)
    bought = {unit: metadata[f"addon_{unit}"] for unit in Unit if f"addon_{unit}" in metadata}
    if not bought:
        return None
    if len(bought) > 1:
        raise ValueError("a checkout can buy one unit: addon_tokens, or another")
    unit, text = next(iter(bought.items()))
    days = metadata.get("addon_days", "")
    if not re.fullmatch(r"[1-9][0-9]{0,15}", text) or int(text) > MAXIMUM:
        raise ValueError(f"addon_{unit} has to be a whole number above 0")
    if not re.fullmatch(r"([1-9][0-9]{0,4})?", days):
        raise ValueError("addon_days has to be a whole number from 1 to 99999")
    return Grant(
        id_of(session.payment_intent) or session.id,
        account_id,
        unit,
        int(text),
        until_s=now_s + int(days) * DAY_S if days else None,
        source="stripe",
        note=session.id,
    )


async def take_back(connection: Connection, charge: Charge, by: Actor, now_ms: int) -> bool:
    """Take back what the refunds of a charge paid for; False where no add-on was bought with it."""
    payment = id_of(charge.payment_intent) or charge.id
    grant = await known_grant(connection, payment, lock=True)
    if grant is None:
        return False
    share = min(charge.amount_refunded, charge.amount)
    target = grant.amount * share // charge.amount if charge.amount else 0
    more = target - await taken_back(connection, payment)
    if more > 0:
        refund = msgspec.structs.replace(
            grant, id=f"{payment}/refund/{target}", amount=-more, note=charge.id, created_ms=0
        )
        await put_grant(connection, refund, by, now_ms)
    return True
