"""A whole gateway that takes its callers' tokens: first sight, known after, refused from the next request on (F4)."""

from pathlib import Path

import pytest

from gateway.domain.faults import Fault
from gateway.identity.directory import Directory
from tests.support.odd_peer import Visit, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.own_usage import own_usage
from tests.support.stand import CHAT, SETTINGS, Stand, now_ms, stand
from tests.support.token_issuer import ISSUER, TokenIssuer, signed, token_issuer
from tests.support.valkey import ValkeyServer

JWT = """
jwt:
  - issuer: {issuer}
    audience: tollway
    jwks_url: {url}
    {more}
"""


def with_issuer(issuer: TokenIssuer, more: str = "create_accounts: true") -> str:
    """Settings that trust the issuer."""
    return SETTINGS + JWT.format(issuer=ISSUER, url=issuer.url, more=more)


async def script(visit: Visit) -> None:
    """An upstream that answers every request of a connection."""
    while True:
        await visit.request()
        await visit.say(http(completion()))


async def ask(here: Stand, token: bytes) -> tuple[int, str]:
    """Send a request with the token: the status, and the error's code."""
    headers = {"authorization": f"Bearer {token.decode()}"}
    answer = await here.client.post(CHAT, json={"model": "m", "messages": []}, headers=headers)
    return answer.status_code, answer.json().get("error", {}).get("code", "")


async def test_a_subject_is_an_account_from_its_first_token_on(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F4, C3: people of a trusted issuer are metered under their own account, on the tier that the settings name for
    their claim; later tokens, whatever they claim, move nobody to another tier.
    """  # noqa: D205
    more = "create_accounts: true\n    tier_claim: plan\n    tiers: {{ small: tiny }}\n    account_prefix: 'idp:'"
    async with (
        token_issuer() as issuer,
        odd_peer(script) as peer,
        stand(tmp_path, valkey, peer.port, settings=with_issuer(issuer, more)) as here,
    ):
        token = signed(plan="small", sub="auth0|ann")
        assert await ask(here, token) == (200, "")
        assert await ask(here, signed(sub="bob")) == (200, "")
        assert (await here.ledger.account("idp:auth0|ann")).tier == "tiny"
        assert (await here.ledger.account("idp:bob")).tier == "free"
        assert (await own_usage(here, token.decode()))["account"] == "idp:auth0|ann"
        assert await ask(here, signed(sub="auth0|ann", plan="none", iat=1)) == (200, "")
        assert await ask(here, signed(sub="auth0|ann", iat=2)) == (429, "rate_limit_exceeded")


async def test_without_create_accounts_nobody_is_made(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Operators who register their people themselves find no stranger in the ledger."""
    async with (
        token_issuer() as issuer,
        odd_peer(script) as peer,
        stand(tmp_path, valkey, peer.port, settings=with_issuer(issuer, "create_accounts: false")) as here,
    ):
        assert await ask(here, signed(sub="stranger")) == (403, "unknown_subject")
        with pytest.raises(Fault):
            await here.ledger.account("stranger")
        await here.account("acme")
        assert await ask(here, signed()) == (200, "")


async def test_a_suspended_account_is_out_from_the_next_request_on(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F4: a token can't be taken back, but its account can be: the very next request of the same token is refused.
    Until then a token that was seen costs one look into memory.
    """  # noqa: D205
    checked: list[bytes] = []
    identify = Directory.identify

    async def counted(self: Directory, token: bytes) -> object:
        checked.append(token)
        return await identify(self, token)

    monkeypatch.setattr(Directory, "identify", counted)
    async with (
        token_issuer() as issuer,
        odd_peer(script) as peer,
        stand(tmp_path, valkey, peer.port, settings=with_issuer(issuer)) as here,
    ):
        token = signed()
        assert [await ask(here, token) for _ in range(4)] == [(200, "")] * 4
        assert len(checked) == 1

        await here.ledger.set_suspended("acme", True, now_ms())
        await here.gateway._limiter.bump("acme", (await here.ledger.account("acme")).version)
        assert await ask(here, token) == (403, "account_suspended")


async def test_a_token_never_goes_upstream(tmp_path: Path, valkey: ValkeyServer) -> None:
    """C3: a person's token opens other doors too; the upstream gets the gateway's credential in its place."""
    seen: list[bytes] = []

    async def watched(visit: Visit) -> None:
        request = await visit.request()
        seen.extend(value for _, value in request.fields)
        await visit.say(http(completion()))

    async with (
        token_issuer() as issuer,
        odd_peer(watched) as peer,
        stand(tmp_path, valkey, peer.port, settings=with_issuer(issuer)) as here,
    ):
        token = signed()
        assert await ask(here, token) == (200, "")
        assert b"Bearer upstream-secret" in seen
        assert not any(token in value for value in seen)
