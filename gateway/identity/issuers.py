"""The issuers of `gateway.yaml`, made ready: their key sets, and who their tokens speak for."""

from collections.abc import Callable, Mapping

from gateway.identity.key_sets import KeySet
from gateway.identity.token_callers import Mapped, TokenCallers
from gateway.identity.tokens import Issuer
from gateway.ledger.ledger import Ledger
from gateway.settings.callers import Jwt
from gateway.settings.model import Settings


def key_sets(settings: Settings) -> dict[str, KeySet]:
    """By issuer. Each has to be `run`."""
    return {
        one.issuer: KeySet(one.jwks_url or one.jwks_file, cache_s=one.cache_s, stale_s=one.stale_s)
        for one in settings.jwt
    }


def token_callers(
    settings: Settings, ledger: Ledger, sets: Mapping[str, KeySet], clock: Callable[[], float]
) -> TokenCallers | None:
    """Who tokens speak for; None where there are no issuers, so that nothing looks at tokens at all."""
    mapped = [_mapped(one, sets[one.issuer], settings.default_tier) for one in settings.jwt]
    return TokenCallers(mapped, ledger, clock) if mapped else None


def _mapped(one: Jwt, key_set: KeySet, default_tier: str) -> Mapped:
    return Mapped(
        issuer=Issuer(one.issuer, one.audience, one.algorithms, one.leeway_s, key_set),
        account_claim=one.account_claim,
        prefix=one.account_prefix,
        tier_claim=one.tier_claim,
        tiers=one.tiers,
        create_tier=(one.default_tier or default_tier) if one.create_accounts else "",
    )
