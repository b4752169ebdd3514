"""Which account a checked token speaks for: by the claims that its issuer's settings name.

Promises: an account is made on first sight only where the issuer's settings say so, on the tier they name, once among
all gateways; from then on the ledger alone says what it may do. Fails with Fault: what `Tokens.check` raises,
UNKNOWN_SUBJECT, LEDGER_UNAVAILABLE.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from gateway.domain.accounts import ApiKey
from gateway.domain.audit import Actor
from gateway.domain.entitlements import Credential, Standing
from gateway.domain.faults import ALREADY_EXISTS, INVALID_TOKEN, NOT_FOUND, UNKNOWN_SUBJECT, Fault
from gateway.identity.tokens import Claims, Issuer, Tokens
from gateway.ledger.ledger import Ledger

TOKEN_KEY_ID = "jwt"  # noqa: S105  # a name, no secret
"""In place of a key's id, in events and logs of requests that came with a token."""

_ACCOUNT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:|-]{0,127}")
_UNKNOWN_S = 5.0
_MOST_UNKNOWN = 16_384


class Mapped(msgspec.Struct, frozen=True):
    """How an issuer's claims become an account.

    Its id is `prefix` and the claim `account_claim`. `create_tier` empty makes no accounts; else it is the tier of
    those whose claim `tier_claim` holds no key of `tiers`.
    """

    issuer: Issuer
    account_claim: str
    prefix: str = ""
    tier_claim: str = ""
    tiers: Mapping[str, str] = {}
    create_tier: str = ""


class TokenCallers:
    """Looks accounts up in the ledger, and makes them. `clock` is Unix seconds."""

    def __init__(self, mapped: Sequence[Mapped], ledger: Ledger, clock: Callable[[], float] = time.time) -> None:
        self._mapped = {one.issuer.issuer: one for one in mapped}
        self._tokens = Tokens([one.issuer for one in mapped], clock)
        self._ledger = ledger
        self._clock = clock
        self._unknown: dict[str, float] = {}

    async def credential(self, token: bytes) -> Credential:
        """The token as a key that ends with it, and its account's standing."""
        issuer, claims, ends_s = await self._tokens.check(token)
        mapped = self._mapped[issuer.issuer]
        account_id = _account_id(mapped, claims)
        standing = await self._standing(account_id, mapped, claims)
        return Credential(ApiKey(TOKEN_KEY_ID, account_id, b"", "", 0, int(ends_s * 1000)), standing)

    async def _standing(self, account_id: str, mapped: Mapped, claims: Claims) -> Standing:
        if self._unknown.get(account_id, 0.0) > self._clock():
            raise Fault(UNKNOWN_SUBJECT, f"there is no account {account_id}")
        try:
            return await self._ledger.standing(account_id)
        except Fault as fault:
            if fault.kind is not NOT_FOUND:
                raise
        if not mapped.create_tier:
            if len(self._unknown) >= _MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[account_id] = self._clock() + _UNKNOWN_S
            raise Fault(UNKNOWN_SUBJECT, f"there is no account {account_id}, and its issuer makes none")
        await self._create(account_id, mapped, claims)
        return await self._ledger.standing(account_id)

    async def _create(self, account_id: str, mapped: Mapped, claims: Claims) -> None:
        claim = _text_claim(claims, mapped.tier_claim) if mapped.tier_claim else None
        tier = mapped.tiers.get(claim or "", mapped.create_tier)
        by = Actor(mapped.issuer.issuer, "jwt")
        try:
            await self._ledger.create_account(account_id, tier, "", int(self._clock() * 1000), by)
        except Fault as fault:
            if fault.kind is not ALREADY_EXISTS:  # another gateway saw it at the same moment
                raise


def _account_id(mapped: Mapped, claims: Claims) -> str:
    claim = _text_claim(claims, mapped.account_claim)
    if claim is None or not _ACCOUNT_ID.fullmatch(account_id := mapped.prefix + claim):
        detail = f"claim {mapped.account_claim} is missing, or can't be an account's id"
        raise Fault(INVALID_TOKEN, f"the token was refused: {detail}", public="The token names no account.")
    return account_id


def _text_claim(claims: Claims, name: str) -> str | None:
    """A claim by its name, as text; None where there is none that is text or a whole number."""
    value = claims.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None
