"""JSON Web Tokens (RFC 7519) of the issuers that `gateway.yaml` trusts: read, checked, and turned into claims.

Promises: the issuer's settings, never the token, say which algorithms count; a key verifies by an algorithm of its own
kind alone, and shared secrets never; times are judged by the gateway's clock with the issuer's leeway. Whatever the
bytes, the answer is claims or a Fault: INVALID_TOKEN, EXPIRED_TOKEN, ISSUER_UNAVAILABLE. No public text tells what an
attacker could use; the log's says what was wrong. The only file that knows PyJWT.
"""

import base64
import binascii
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jwt
import msgspec

from gateway.domain.faults import EXPIRED_TOKEN, INVALID_TOKEN, Fault
from gateway.identity.key_sets import Key, KeySet

LONGEST_BYTES = 16_384
LEAST_RSA_BITS = 2048
_NOT_YET = "The token is not valid yet."
_OTHERS = "The token was not made for this gateway."
_UNSIGNED = "The token's signature can't be verified."
_CURVES = {"ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521"), "EdDSA": ("OKP", "")}

Claims = Mapping[str, Any]


class Issuer(msgspec.Struct, frozen=True):
    """Whose tokens count, and what is asked of them. `audience` is one that a token has to name."""

    issuer: str
    audience: str
    algorithms: Sequence[str]
    leeway_s: float
    key_set: KeySet


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None
    crit: Any = None


class _Unverified(msgspec.Struct):
    iss: str


def looks_like_token(token: bytes) -> bool:
    """Whether the text can be a token: three parts, the first a JSON object in base64url."""
    return token.startswith(b"eyJ") and token.count(b".") == 2


class Tokens:
    """Checks tokens. `clock` is Unix seconds."""

    def __init__(self, issuers: Sequence[Issuer], clock: Callable[[], float]) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._clock = clock
        self._made: dict[tuple[str, int], dict[tuple[str, str], list[jwt.PyJWK]]] = {}

    async def check(self, token: bytes) -> tuple[Issuer, Claims, float]:
        """The issuer, its claims, and the Unix second from which they no longer count. Raises Fault."""
        if len(token) > LONGEST_BYTES:
            raise _invalid("it is longer than 16 KiB", _UNSIGNED)
        header, claims = _parts(token)
        issuer = self._issuers.get(claims.iss)
        if issuer is None:
            raise _invalid("its issuer is not among the settings'", _OTHERS)
        if header.alg not in issuer.algorithms or header.crit is not None:
            raise _invalid(f"algorithm {header.alg[:16]!r} does not count here", _UNSIGNED)
        for key in await self._keys(issuer, header):
            verified = _verified(token, key, header.alg, issuer)
            if verified is not None:
                return issuer, verified, self._ends_s(verified, issuer)
        raise _invalid("no key of its issuer verifies it", _UNSIGNED)

    async def _keys(self, issuer: Issuer, header: _Header) -> list[jwt.PyJWK]:
        """The keys that may have signed: of that name; without one, the only key that there is for the algorithm."""
        found = await self._find(issuer, header)
        if not found and header.kid is not None and await issuer.key_set.look_again():
            found = await self._find(issuer, header)
        if header.kid is None and len(found) > 1:
            raise _invalid("it names no key, and its issuer has several", _UNSIGNED)
        return found

    async def _find(self, issuer: Issuer, header: _Header) -> list[jwt.PyJWK]:
        keys = await issuer.key_set.keys()
        place = issuer.issuer, issuer.key_set.generation
        if place not in self._made:
            self._made = {one: made for one, made in self._made.items() if one[0] != issuer.issuer}
            self._made[place] = {}
        made, asked = self._made[place], (header.alg, header.kid or "")
        if asked in made:
            return made[asked]
        fitting = [_made(key, header.alg) for key in keys if header.kid is None or key.get("kid") == header.kid]
        found = [key for key in fitting if key is not None]
        if found:
            made[asked] = found
        return found

    def _ends_s(self, claims: Claims, issuer: Issuer) -> float:
        now_s = self._clock()
        expires_s, not_before_s = _moment(claims, "exp"), _moment(claims, "nbf")
        if expires_s is None:
            raise _invalid("it has no exp", _UNSIGNED)
        if now_s >= expires_s + issuer.leeway_s:
            raise Fault(EXPIRED_TOKEN)
        if not_before_s is not None and now_s < not_before_s - issuer.leeway_s:
            raise _invalid("its nbf is ahead", _NOT_YET)
        return expires_s + issuer.leeway_s


def _invalid(internal: str, public: str) -> Fault:
    return Fault(INVALID_TOKEN, f"the token was refused: {internal}", public=public)


def _parts(token: bytes) -> tuple[_Header, _Unverified]:
    """What a token says of itself, not yet believed."""
    head, _, rest = token.partition(b".")
    try:
        header = msgspec.json.decode(_decoded(head), type=_Header)
        return header, msgspec.json.decode(_decoded(rest.partition(b".")[0]), type=_Unverified)
    except (msgspec.MsgspecError, binascii.Error, ValueError, RecursionError) as error:
        raise _invalid("it can't be read", _UNSIGNED) from error


def _decoded(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def _made(key: Key, algorithm: str) -> jwt.PyJWK | None:
    """The key, ready to verify by the algorithm; None where it is not for that."""
    kind, curve = _CURVES.get(algorithm, ("RSA", ""))
    operations = key.get("key_ops")
    if (
        key.get("kty") != kind
        or (kind == "EC" and key.get("crv") != curve)
        or key.get("use", "sig") != "sig"
        or key.get("alg", algorithm) != algorithm
        or (isinstance(operations, list) and "verify" not in operations)
    ):
        return None
    try:
        made = jwt.PyJWK({name: value for name, value in key.items() if name not in _PRIVATE}, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    return None if kind == "RSA" and made.key.key_size < LEAST_RSA_BITS else made


_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})


def _verified(token: bytes, key: jwt.PyJWK, algorithm: str, issuer: Issuer) -> Claims | None:
    """The claims, None where the key did not sign. Raises Fault(INVALID_TOKEN) where they are not meant for us."""
    # The times are judged by our own clock.
    times = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_sub": False, "verify_jti": False}
    asked: Any = {**times, "require": ["iss", "aud"]}
    try:
        claims: Claims = jwt.decode(
            token, key, [algorithm], options=asked, audience=issuer.audience, issuer=issuer.issuer
        )
    except jwt.InvalidSignatureError:
        return None
    except (jwt.InvalidAudienceError, jwt.InvalidIssuerError, jwt.MissingRequiredClaimError) as error:
        raise _invalid(str(error), _OTHERS) from error
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise _invalid(f"{type(error).__name__}", _UNSIGNED) from error
    return claims


def _moment(claims: Claims, name: str) -> float | None:
    """A NumericDate (RFC 7519 §2), None where there is none. Raises Fault(INVALID_TOKEN) for what is no moment."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 2**40:
        raise _invalid(f"its {name} is no moment", _UNSIGNED)
    return float(value)
