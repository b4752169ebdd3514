"""Who calls: accounts, the API keys they own, and what a checked key says of its caller. Pure values.

Times are Unix milliseconds.
"""

from typing import Any

import msgspec

from gateway.domain.key_terms import ANYTHING, KeyTerms


class Account(msgspec.Struct, frozen=True, gc=False):
    """Who is limited and billed.

    `version` grows by one with every change of the account or of one of its keys: a gateway that knows an older one
    knows too little.
    """

    id: str
    name: str
    tier: str
    suspended: bool
    version: int
    created_ms: int


class ApiKey(msgspec.Struct, frozen=True, gc=False):
    """One API key of an account. The key itself is nowhere kept: `digest` is its HMAC (`identity/keys.py`).

    `expires_ms` None never expires; the key is refused from that millisecond on.
    """

    id: str
    account_id: str
    digest: bytes
    name: str
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None
    terms: KeyTerms = ANYTHING

    @property
    def counter(self) -> str:
        """What the key's own limits count under."""
        return self.terms.counter or self.id


class Caller(msgspec.Struct, frozen=True, gc=False):
    """A request's caller once its key is checked; `version` is that of the account as it was read.

    `tier` is the effective one. `plan` is what this account's entitlements were compiled to, None where the tier's own
    plan says it all.
    """

    account_id: str
    key_id: str
    tier: str
    version: int
    plan: Any = None
    scope: KeyTerms | None = None
    """Of a key that is not for everything."""
