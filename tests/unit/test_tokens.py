"""Tokens are taken for exactly what their issuer signed, and for nothing that only looks so (F4)."""

import base64
import hashlib
import hmac
import time
import warnings
from collections.abc import AsyncIterator
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.domain.faults import Fault
from gateway.identity import key_sets as module
from gateway.identity.key_sets import KeySet
from gateway.identity.tokens import Issuer, Tokens, looks_like_token
from tests.support.token_issuer import (
    AUDIENCE,
    EC_KEY,
    ED_KEY,
    ISSUER,
    OTHER_RSA_KEY,
    RSA_KEY,
    TokenIssuer,
    public,
    signed,
    token_issuer,
)

ALL = ("RS256", "PS256", "ES256", "ES384", "EdDSA")


class Clock:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now_s


@pytest.fixture(autouse=True)
def _time_for_the_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here is about an issuer that is slow; on a busy machine each is."""
    monkeypatch.setattr(module, "FIRST_WAIT_S", 30)
    monkeypatch.setattr(module, "FETCH_S", 30)


@pytest.fixture
def clock() -> Clock:
    """The key set's monotonic clock."""
    return Clock()


@pytest.fixture
async def issuer() -> AsyncIterator[TokenIssuer]:
    """A served key set."""
    async with token_issuer() as served:
        yield served


def tokens_of(issuer: TokenIssuer, clock: Clock, *, leeway_s: float = 30, algorithms: Any = ALL) -> Tokens:
    """What checks the issuer's tokens."""
    key_set = KeySet(issuer.url, cache_s=300, stale_s=3600, clock=clock)
    return Tokens([Issuer(ISSUER, AUDIENCE, algorithms, leeway_s, key_set)], time.time)


async def refusal(tokens: Tokens, token: bytes) -> tuple[str, str]:
    """The code and the public text with which a token is refused."""
    with pytest.raises(Fault) as raised:
        await tokens.check(token)
    return raised.value.kind.code, raised.value.public


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA_KEY, "RS256"), (RSA_KEY, "PS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA")],
    ids=["RS256", "PS256", "ES256", "EdDSA"],
)
async def test_a_signed_token_is_taken(issuer: TokenIssuer, clock: Clock, key: Any, algorithm: str) -> None:
    """F4: whatever kind of key an identity provider signs with, its people get in, as whom it says."""
    issuer.keys = [public(key, "one")]
    began_s = time.time()
    found, claims, ends_s = await tokens_of(issuer, clock).check(signed(key, algorithm=algorithm))

    assert (found.issuer, claims["sub"]) == (ISSUER, "acme")
    assert began_s + 629 <= ends_s <= time.time() + 630


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ({"iss": "https://evil.example.com"}, "The token was not made for this gateway."),
        ({"aud": "another"}, "The token was not made for this gateway."),
        ({"aud": None}, "The token was not made for this gateway."),
        ({"iss": None}, "The token's signature can't be verified."),
        ({"exp": None}, "The token's signature can't be verified."),
        ({"nbf": 2**33}, "The token is not valid yet."),
    ],
)
async def test_claims_that_do_not_hold_are_refused(
    issuer: TokenIssuer, clock: Clock, claims: dict[str, Any], text: str
) -> None:
    """A token that was made for another service, by another issuer or for ever lets nobody in here."""
    assert await refusal(tokens_of(issuer, clock), signed(**claims)) == ("invalid_token", text)


async def test_times_are_judged_with_the_leeway(issuer: TokenIssuer, clock: Clock) -> None:
    """Clocks that are half a minute apart refuse nobody; a token that is over by more counts no longer."""
    now_s, tokens = int(time.time()), tokens_of(issuer, clock, leeway_s=30)

    assert await tokens.check(signed(exp=now_s - 20, nbf=now_s - 600))
    assert await tokens.check(signed(nbf=now_s + 20))
    assert (await refusal(tokens, signed(exp=now_s - 31)))[0] == "expired_token"
    assert (await refusal(tokens, signed(nbf=now_s + 40)))[0] == "invalid_token"


def forged(header: dict[str, Any], secret: bytes = b"", **claims: Any) -> bytes:
    """A token made by hand, as no library makes one: signed by HMAC with `secret`."""
    stated = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": int(time.time()) + 600, **claims}
    head = b".".join(base64.urlsafe_b64encode(msgspec.json.encode(part)).rstrip(b"=") for part in (header, stated))
    digest = hmac.digest(secret, head, hashlib.sha256) if secret else b""
    return head + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")


async def test_forgeries_are_refused(issuer: TokenIssuer, clock: Clock) -> None:
    """The known ways to forge a token fail: no algorithm, a shared secret made of the public key, another's key under
    a known name, a key that the token brings along, a critical header that is not understood.
    """  # noqa: D205
    tokens = tokens_of(issuer, clock)
    pem = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    forgeries = [
        forged({"alg": "none", "kid": "one"}),
        forged({"alg": "NONE", "kid": "one"}),
        forged({"alg": "HS256", "kid": "one"}, pem),
        forged({"alg": "RS256", "kid": "one"}, pem),
        signed(OTHER_RSA_KEY),
        signed(EC_KEY, algorithm="ES256"),
        jwt.encode(
            {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": int(time.time()) + 600},
            OTHER_RSA_KEY,
            "RS256",
            headers={"kid": "one", "jwk": public(OTHER_RSA_KEY, "one"), "jku": "http://127.0.0.1:1/"},
        ).encode(),
        forged({"alg": "RS256", "kid": "one", "crit": ["exp"]}),
        signed()[:-8] + b"AAAAAAAA",
    ]

    assert [await refusal(tokens, one) for one in forgeries] == [
        ("invalid_token", "The token's signature can't be verified.")
    ] * len(forgeries)


async def test_keys_that_are_not_for_it_verify_nothing(issuer: TokenIssuer, clock: Clock) -> None:
    """An issuer's encryption key, weak key, other algorithm's key or shared secret is no key for signatures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weak = rsa.generate_private_key(65537, 1024)
        short = signed(weak)
    curve = ec.generate_private_key(ec.SECP384R1())
    for keys, token in (
        ([public(RSA_KEY, "one", use="enc")], signed()),
        ([public(RSA_KEY, "one", alg="PS256")], signed()),
        ([public(RSA_KEY, "one", key_ops=["encrypt"])], signed()),
        ([{"kty": "oct", "kid": "one", "k": "c2VjcmV0"}], forged({"alg": "HS256", "kid": "one"}, b"secret")),
        ([public(weak, "one")], short),
        ([public(curve, "one")], signed(EC_KEY, algorithm="ES256")),
        ([{"kty": "RSA", "kid": "one", "n": "!", "e": 5}], signed()),
    ):
        issuer.keys = keys
        assert (await refusal(tokens_of(issuer, clock, algorithms=ALL), token))[0] == "invalid_token"


async def test_a_token_that_names_no_key_is_taken_where_there_is_one(issuer: TokenIssuer, clock: Clock) -> None:
    """Issuers with one key need not name it; among several, guessing is not ours."""
    token = signed(kid=None)
    assert await tokens_of(issuer, clock).check(token)

    issuer.keys.append(public(OTHER_RSA_KEY, "two"))
    assert (await refusal(tokens_of(issuer, clock), token))[0] == "invalid_token"


async def test_a_rotated_key_is_found_by_one_look(issuer: TokenIssuer, clock: Clock) -> None:
    """F4: a token signed by a key of a minute ago gets in at once; made-up key names cost the issuer one look in ten
    seconds, however many come; a key that was taken away verifies nothing any more.
    """  # noqa: D205
    tokens = tokens_of(issuer, clock)
    await tokens.check(signed())
    issuer.keys = [public(OTHER_RSA_KEY, "two")]
    clock.now_s += 11
    assert await tokens.check(signed(OTHER_RSA_KEY, "two"))
    assert issuer.asked == 2

    for number in range(20):
        assert (await refusal(tokens, signed(OTHER_RSA_KEY, f"made-up-{number}")))[0] == "invalid_token"
    assert issuer.asked == 2
    assert (await refusal(tokens, signed()))[0] == "invalid_token"


async def test_keys_serve_on_while_the_issuer_is_down_and_not_for_ever(issuer: TokenIssuer, clock: Clock) -> None:
    """An identity provider's outage logs nobody out for an hour; after `stale_s` its word is too old to go by."""
    tokens = tokens_of(issuer, clock)
    await tokens.check(signed())
    issuer.down = True
    clock.now_s += 3800
    assert (await refusal(tokens, signed(OTHER_RSA_KEY, "two")))[0] == "invalid_token"
    assert await tokens.check(signed())

    clock.now_s += 101
    assert (await refusal(tokens, signed()))[0] == "issuer_unavailable"


async def test_before_the_first_keys_came_it_is_said_so(issuer: TokenIssuer, clock: Clock) -> None:
    """A gateway that starts while the issuer is down answers 503, never 401: SDKs try again, people stay logged in."""
    issuer.down = True
    tokens = tokens_of(issuer, clock)
    assert [(await refusal(tokens, signed()))[0] for _ in range(5)] == ["issuer_unavailable"] * 5
    assert issuer.asked == 1

    issuer.down = False
    clock.now_s += module.LOOK_AGAIN_S
    assert await tokens.check(signed())


async def test_huge_and_deep_tokens_are_refused(issuer: TokenIssuer, clock: Clock) -> None:
    """What would cost memory or the interpreter's stack is refused unread."""
    tokens = tokens_of(issuer, clock)
    deep = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 4000).rstrip(b"=")
    for token in (signed(pad="x" * 20_000), b"eyJ." + deep + b".", deep + b"." + deep + b".x"):
        assert (await refusal(tokens, token))[0] == "invalid_token"


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(b"eyJ..")
@example(b"eyJhbGciOjF9.e30.")
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: b"eyJ" + text.encode("utf-8", "replace")))
async def test_whatever_the_bytes_the_answer_is_a_fault(token: bytes) -> None:
    """Anyone may send anything as a bearer; nothing of it may reach the log as a crash."""
    key_set = KeySet("/nowhere/jwks.json", cache_s=300, stale_s=0)
    tokens = Tokens([Issuer(ISSUER, AUDIENCE, ALL, 0, key_set)], time.time)
    looks_like_token(token)

    assert (await refusal(tokens, token))[0] == "invalid_token"
