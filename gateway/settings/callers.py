"""Who may call, as gateway.yaml says it: the issuers whose tokens count. See `settings/model.py` for how to read it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, field

from gateway.settings import checks
from gateway.settings.convert import BROKEN
from gateway.settings.section import Seconds, Section

TokenAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures that a public key verifies. Shared secrets (HS256) and "none" are no choice."""


class Jwt(Section, frozen=True, kw_only=True):
    """An issuer whose tokens are taken in place of API keys."""

    issuer: Annotated[str, Meta(min_length=1, description="As in the claim iss, to the letter.")]
    audience: Annotated[str, Meta(min_length=1, description="What the claim aud has to name.")]
    jwks_url: Annotated[
        str,
        Meta(description="Where the issuer's public keys (JWKS) are fetched.", extra={"check": checks.jwks_url}),
    ] = ""
    jwks_file: Annotated[str, Meta(description="The file they are read from, in place of jwks_url.")] = ""
    algorithms: Annotated[
        tuple[TokenAlgorithm, ...], Meta(min_length=1, description="Those that count, whatever a token says.")
    ] = ("RS256",)
    account_claim: Annotated[str, Meta(min_length=1, description="The claim that names the account.")] = "sub"
    account_prefix: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z0-9][A-Za-z0-9._@:-]{0,63})?$",
            description="Put before it to make the account's id; what tells the accounts of issuers apart.",
            extra={"rule": "up to 64 letters, digits and . _ @ : -"},
        ),
    ] = ""
    create_accounts: Annotated[bool, Meta(description="Make an account at its first token.")] = False
    default_tier: Annotated[
        str, Meta(description="The tier of accounts made so; empty: the default_tier of the file.")
    ] = ""
    tier_claim: Annotated[str, Meta(description="The claim that picks another tier, by tiers.")] = ""
    tiers: Annotated[dict[str, str], Meta(description="Tier by the value of tier_claim.")] = field(default_factory=dict)
    leeway_s: Annotated[float, Meta(ge=0, le=600, description="By how much clocks may be apart.")] = 30
    cache_s: Annotated[Seconds, Meta(description="How often the keys are fetched.")] = 300
    stale_s: Annotated[
        float, Meta(ge=0, le=2_592_000, description="How much longer they serve while the issuer is away.")
    ] = 86_400


class GuessesSettings(Section, frozen=True, kw_only=True):
    """How wrong keys and tokens are slowed."""

    failures: Annotated[
        int, Meta(ge=0, le=1_000_000, description="Wrong ones of one address in window_s; 0 slows nobody.")
    ] = 60
    window_s: Annotated[Seconds, Meta(description="See failures.")] = 60


def issuer_problems(issuers: Sequence[Jwt], tiers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What does not hold between the settings of issuers, and between them and the tiers."""
    seen: set[str] = set()
    bare: str | None = None
    for index, one in enumerate(issuers):
        if one is BROKEN:
            continue
        path = f"jwt[{index}]"
        if one.issuer is not BROKEN and one.issuer in seen:
            yield f"{path}.issuer", "is an issuer that stands above already"
        seen.add(one.issuer)
        if BROKEN not in {one.jwks_url, one.jwks_file} and bool(one.jwks_url) is bool(one.jwks_file):
            yield path, "needs jwks_url or jwks_file, one of the two"
        if not one.account_prefix:
            if bare is not None:
                yield path, f"needs an account_prefix: else its subjects and those of {bare} would be the same accounts"
            bare = path
        yield from _unknown_tiers(path, one, tiers)


def _unknown_tiers(path: str, one: Jwt, tiers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if tiers is BROKEN or BROKEN in (one.default_tier, one.tiers):
        return
    if one.default_tier and one.default_tier not in tiers:
        yield f"{path}.default_tier", "is not a tier of this file" + checks.did_you_mean(one.default_tier, tiers)
    for value, tier in one.tiers.items():
        if tier is not BROKEN and tier not in tiers:
            at = f"{path}.tiers.{value}"
            yield at, "is not a tier of this file" + checks.did_you_mean(tier, tiers)
