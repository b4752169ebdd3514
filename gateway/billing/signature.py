"""Whether Stripe signed a webhook: the header `Stripe-Signature` over the very bytes that came.

The header is `t=<Unix seconds>,v1=<hex>[,v1=<hex>…]`; each v1 is HMAC-SHA256 of `<t>.<body>` (Stripe, "Verify webhook
signatures manually"). Compared in constant time, under each secret that is in force.
"""

import hmac
import re
from collections.abc import Sequence
from enum import StrEnum

_PART = re.compile(r"(t)=(\d{1,12})|(v1)=([0-9a-f]{64})")


class Doubt(StrEnum):
    """Why a webhook is refused."""

    UNSIGNED = "unsigned"
    """No signature, or one that can't be read."""
    FORGED = "forged"
    """No secret in force makes the signature: another's, or of other bytes."""
    STALE = "stale"
    """Signed too long ago, or for a time to come: a replay."""
    UNREADABLE = "unreadable"
    """Signed, and no event."""
    TOO_LARGE = "too_large"


def doubt(body: bytes, header: str, secrets: Sequence[str], tolerance_s: int, now_s: float) -> Doubt | None:
    """What speaks against the webhook, None where Stripe sent it within `tolerance_s` of now."""
    moment, signatures = "", []
    for part in header[:4096].split(","):
        found = _PART.fullmatch(part.strip())
        if found is not None and found[1]:
            moment = found[2]
        elif found is not None:
            signatures.append(found[4])
    if not moment or not signatures:
        return Doubt.UNSIGNED
    signed = moment.encode() + b"." + body
    mine = [hmac.new(secret.encode(), signed, "sha256").hexdigest() for secret in secrets]
    if not any(hmac.compare_digest(one, given) for one in mine for given in signatures):
        return Doubt.FORGED
    return None if abs(now_s - int(moment)) <= tolerance_s else Doubt.STALE
