"""What a key is for, and how it is rotated (F4)."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gateway.domain.accounts import ApiKey
from gateway.domain.faults import Fault
from gateway.domain.key_terms import ANYTHING, KeyTerms, unfit_key_terms
from gateway.domain.usage import CountedBy, Outcome, UsageEvent
from gateway.identity.directory import Directory
from gateway.identity.keys import new_key
from gateway.ledger.ledger import Ledger
from gateway.quota.hold import charges
from tests.support.ledgers import url_of

DIGEST_KEY = b"k" * 32
NOW_MS = 1_795_262_400_000


@pytest.fixture
async def ledger(ledger_path: Path) -> AsyncIterator[Ledger]:
    """A ledger with one account, `acme`."""
    opened = Ledger.open(url_of(ledger_path))
    await opened.create_account("acme", "free", "", 1)
    yield opened
    await opened.close()


async def a_key(
    ledger: Ledger, terms: KeyTerms = ANYTHING, *, created_ms: int = NOW_MS, expires_ms: int | None = None
) -> tuple[ApiKey, bytes]:
    """A fresh key of `acme`, and its text."""
    key_id, text, digest = new_key(DIGEST_KEY)
    key = ApiKey(key_id, "acme", digest, "app", created_ms, expires_ms, terms=terms)
    await ledger.create_key(key)
    return key, text.encode()


async def code(directory: Directory, token: bytes) -> str:
    """How a key is answered: ok, or the code of its fault."""
    try:
        await directory.identify(token)
    except Fault as fault:
        return fault.kind.code
    return "ok"


async def test_a_key_keeps_its_terms(ledger: Ledger) -> None:
    """F4: what an operator wrote is what binds the key, from the ledger, and what the audit tells."""
    terms = KeyTerms(("/v1/chat/*",), ("gpt-4o*",))
    key, token = await a_key(ledger, terms)
    plain, other = await a_key(ledger)
    directory = Directory(ledger, DIGEST_KEY)

    assert await ledger.list_keys("acme") == sorted([key, plain], key=lambda one: one.id)
    assert (await directory.identify(token)).scope == terms
    assert (await directory.identify(other)).scope is None
    told = [row.after or "" for row in await ledger.audit_log("acme")]
    assert any('"gpt-4o*"' in text for text in told)


async def test_a_rotated_key_works_until_the_second_of_its_end(ledger: Ledger) -> None:
    """F4: an app has until exactly the end of the overlap to take the new key; not a second more works, and no key
    is without a successor in between. The old one, kept in memory by a gateway, ends at that second as well.
    """  # noqa: D205
    wall_s = NOW_MS / 1000
    directory = Directory(ledger, DIGEST_KEY, clock=lambda: wall_s, wall_clock=lambda: wall_s)
    old, token = await a_key(ledger)
    new_id, text, digest = new_key(DIGEST_KEY)
    ended, new = await ledger.rotate_key(old.id, (new_id, digest), overlap_ms=86_400_000, now_ms=NOW_MS)

    assert (ended.expires_ms, new.expires_ms, new.name) == (NOW_MS + 86_400_000, None, "app")
    wall_s += 86_399.999
    assert [await code(directory, one) for one in (token, text.encode())] == ["ok", "ok"]
    assert directory.known(token) is not None
    wall_s += 0.001
    assert directory.known(token) is None
    assert [await code(directory, one) for one in (token, text.encode())] == ["expired_api_key", "ok"]


async def test_a_successor_has_what_the_old_key_had(ledger: Ledger) -> None:
    """Rotating widens nothing: terms, length of life, and the counters of the key's own limits go along."""
    terms = KeyTerms(("/v1/*",), limits={"tokens/day": 10})
    old, _ = await a_key(ledger, terms, created_ms=NOW_MS - 50, expires_ms=NOW_MS + 50)
    ended, second = await ledger.rotate_key(old.id, ("second", b"d"), overlap_ms=1000, now_ms=NOW_MS)
    _, third = await ledger.rotate_key("second", ("third", b"d"), overlap_ms=0, now_ms=NOW_MS + 1)

    assert ended.expires_ms == NOW_MS + 50, "an overlap makes no key live longer"
    assert second.expires_ms == NOW_MS + 100
    assert (second.terms.routes, second.terms.limits) == (terms.routes, terms.limits)
    assert second.terms.counter == third.terms.counter == old.id


async def test_a_dead_key_is_not_rotated(ledger: Ledger) -> None:
    """A key that was revoked for a leak must not come back to life by a script that rotates everything."""
    revoked, _ = await a_key(ledger)
    await ledger.revoke_key(revoked.id, NOW_MS)
    expired, _ = await a_key(ledger, expires_ms=NOW_MS)
    for key_id, expected in (
        (revoked.id, "revoked_api_key"),
        (expired.id, "expired_api_key"),
        ("nobody", "not_found"),
    ):
        with pytest.raises(Fault) as raised:
            await ledger.rotate_key(key_id, ("new", b"d"), overlap_ms=0, now_ms=NOW_MS)
        assert raised.value.kind.code == expected
    assert len(await ledger.list_keys("acme")) == 2


def test_a_dead_request_frees_its_keys_slot() -> None:
    """What a killed worker held of a key's concurrency is charged for nothing; else the key would be shut for good."""
    lines = [("tokens/day#k", 0, 500), ("concurrency#k", 0, 1)]
    values = [*[""] * 8, 1, 1, 0, Outcome.REAPED, CountedBy.ESTIMATE, False, 1, 7, 2, 0, 0, 0, 0, 0]
    about = msgspec.convert(values, UsageEvent)

    assert charges(lines, about) == [("tokens/day#k", 0, 9), ("concurrency#k", 0, 0)]


@pytest.mark.parametrize(
    ("terms", "word"),
    [
        (KeyTerms(("v1/*",)), "slash"),
        (KeyTerms(("/" * 300,)), "letters"),
        (KeyTerms(models=tuple("m" * 65)), "64 routes"),
        (KeyTerms(limits={"tokens": 1}), "unit/window"),
        (KeyTerms(limits={"tokens/day": -1}), "from 0"),
        (KeyTerms(concurrency=2**60), "from 0"),
    ],
)
def test_terms_that_cannot_hold_are_told(terms: KeyTerms, word: str) -> None:
    """Who mistypes a scope learns it when the key is made, not when its app is refused."""
    (text,) = unfit_key_terms(terms)

    assert word in text
