"""An issuer of tokens: real keys, real signatures, and a real HTTP server that hands its key set out."""

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.support.odd_peer import Visit, odd_peer

ISSUER = "https://login.example.com/"
AUDIENCE = "tollway"

RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def public(key: Any, kid: str | None, **more: Any) -> dict[str, Any]:
    """The JSON Web Key of a private key's public half."""
    algorithm: Any = (
        RSAAlgorithm
        if isinstance(key, rsa.RSAPrivateKey)
        else ECAlgorithm
        if isinstance(key, ec.EllipticCurvePrivateKey)
        else OKPAlgorithm
    )
    made: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    made.pop("key_ops", None)
    return {**made, **({} if kid is None else {"kid": kid}), **more}


def signed(key: Any = RSA_KEY, kid: str | None = "one", algorithm: str = "RS256", **claims: Any) -> bytes:
    """A token of `ISSUER` for `acme` that lives ten minutes; a claim of None is left out."""
    now_s = int(time.time())
    stated = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": now_s + 600, **claims}
    kept = {name: value for name, value in stated.items() if value is not None}
    return jwt.encode(kept, key, algorithm, headers={} if kid is None else {"kid": kid}).encode()


class TokenIssuer:
    """`keys` is what it hands out; `down` answers 503; `asked` counts the visits."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [public(RSA_KEY, "one")]
        self.down = False
        self.asked = 0
        self.url = ""

    async def answer(self, visit: Visit) -> None:
        """Hand the key set out."""
        await visit.request()
        self.asked += 1
        body = msgspec.json.encode({"keys": self.keys})
        status = b"503 Gone Fishing" if self.down else b"200 OK"
        await visit.say(b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (status, len(body)), body)


@contextlib.asynccontextmanager
async def token_issuer() -> AsyncIterator[TokenIssuer]:
    """Serve a key set on loopback."""
    issuer = TokenIssuer()
    async with odd_peer(issuer.answer) as peer:
        issuer.url = f"http://127.0.0.1:{peer.port}/jwks.json"
        yield issuer
