"""Accounts, keys and the outbox in the ledger."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.domain.accounts import Account, ApiKey
from gateway.domain.entitlements import Credential, Standing
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.ledger import sqlite_store
from gateway.ledger.ledger import Ledger
from gateway.ledger.outbox import apply_outbox, run_outbox
from tests.support.ledgers import url_of

KEY = ApiKey("abcdefghijkl", "acme", b"digest", "ci", created_ms=7, expires_ms=90)


@pytest.fixture
async def acme(ledger: Ledger) -> Account:
    """An account on tier free, at version 1, with nothing in the outbox."""
    return await ledger.create_account("acme", "free", "Acme", 5)


async def test_what_was_written_is_read(ledger: Ledger, acme: Account) -> None:
    """F4: an account and its key come back as they were made; a caller is who the operator said."""
    await ledger.create_key(KEY)

    assert acme == Account("acme", "Acme", "free", suspended=False, version=1, created_ms=5)
    assert await ledger.account("acme") == Account("acme", "Acme", "free", suspended=False, version=2, created_ms=5)
    assert await ledger.credential(KEY.id) == Credential(KEY, Standing(await ledger.account("acme")))
    assert await ledger.list_keys("acme") == [KEY]
    assert await ledger.credential("unknown") is None


CHANGES: dict[str, Callable[[Ledger], Awaitable[object]]] = {
    "set_tier": lambda ledger: ledger.set_tier("acme", "premium", 9),
    "suspend": lambda ledger: ledger.set_suspended("acme", True, 9),
    "create_key": lambda ledger: ledger.create_key(ApiKey("key2key2key2", "acme", b"d", "", 9)),
    "revoke_key": lambda ledger: ledger.revoke_key(KEY.id, 9),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_every_change_raises_the_version_and_leaves_an_outbox_row(
    ledger: Ledger, acme: Account, change: Callable[[Ledger], Awaitable[object]]
) -> None:
    """F4: a gateway learns of a change by its version alone; one that left no row would count after a minute only."""
    await ledger.create_key(KEY)
    before = await ledger.account(acme.id)
    await apply_outbox(ledger, _deaf)

    await change(ledger)

    after = await ledger.account(acme.id)
    assert after.version == before.version + 1
    assert [(bump.account_id, bump.version) for bump in await ledger.pending_bumps()] == [("acme", after.version)]


@pytest.mark.parametrize(
    "change",
    [
        lambda ledger: ledger.account("nobody"),
        lambda ledger: ledger.set_tier("nobody", "free", 1),
        lambda ledger: ledger.set_suspended("nobody", False, 1),
        lambda ledger: ledger.create_key(ApiKey("k", "nobody", b"", "", 1)),
        lambda ledger: ledger.list_keys("nobody"),
        lambda ledger: ledger.revoke_key("nokey", 1),
    ],
)
async def test_what_is_not_there_is_named(ledger: Ledger, change: Callable[[Ledger], Awaitable[object]]) -> None:
    """An operator with a typing error is told what does not exist, and nothing is written."""
    with pytest.raises(Fault) as raised:
        await change(ledger)

    assert raised.value.kind.code == "not_found"
    assert "no" in raised.value.public
    assert await ledger.pending_bumps() == []


async def test_an_id_is_taken_once(ledger: Ledger, acme: Account) -> None:
    """Making an account or key anew must never replace the one that is billed."""
    await ledger.create_key(KEY)

    with pytest.raises(Fault, match="already"):
        await ledger.create_account("acme", "premium", "Other", 6)
    with pytest.raises(Fault) as raised:
        await ledger.create_key(ApiKey(KEY.id, "acme", b"other", "", 6))

    assert raised.value.kind.code == "already_exists"
    assert (await ledger.account("acme")).name == acme.name
    assert await ledger.list_keys("acme") == [KEY]
    assert (await ledger.account("acme")).version == 2, "the refused key raised no version"


@pytest.mark.usefixtures("acme")
async def test_a_key_is_revoked_once(ledger: Ledger) -> None:
    """F4: revoking again keeps the first moment, which is what an audit asks for."""
    await ledger.create_key(KEY)
    first = await ledger.revoke_key(KEY.id, 50)
    version = (await ledger.account("acme")).version

    assert first.revoked_ms == 50
    assert await ledger.revoke_key(KEY.id, 60) == first
    assert (await ledger.account("acme")).version == version


async def test_accounts_are_listed_page_by_page(ledger: Ledger) -> None:
    """A fleet with more accounts than one page misses none and sees none twice."""
    names = [f"a{number:03}" for number in range(25)]
    for name in reversed(names):
        await ledger.create_account(name, "free", "", 1)

    seen: list[str] = []
    while page := await ledger.list_accounts(after=seen[-1] if seen else "", limit=10):
        seen += [account.id for account in page]

    assert seen == names


@pytest.fixture
def patient_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the disk is: forty commits at once may take it longer than a caller waits for the lock."""
    patient = [line.replace("busy_timeout=5000", "busy_timeout=50000") for line in sqlite_store._PRAGMAS]
    monkeypatch.setattr(sqlite_store, "_PRAGMAS", patient)
    monkeypatch.setattr(sqlite_store, "BUSY_TIMEOUT_MS", 50_000)


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("patient_sqlite")
async def test_two_processes_change_one_account(ledger: Ledger, ledger_url: str, acme: Account) -> None:
    """The console and the command line write at the same time: no change is lost, none fails for want of the lock."""
    other = Ledger.open(ledger_url)
    keys = [ApiKey(f"key{number}", "acme", b"d", "", 1) for number in range(20)]
    for key in keys:
        await ledger.create_key(key)
    changes: list[Awaitable[object]] = []
    for number, key in enumerate(keys):
        one, two = (ledger, other) if number % 2 else (other, ledger)
        changes += [one.set_tier("acme", f"t{number}", 1), two.revoke_key(key.id, 1)]

    await asyncio.gather(*changes)
    await other.close()

    assert (await ledger.account("acme")).version == acme.version + 60
    assert sorted(bump.version for bump in await ledger.pending_bumps()) == list(range(2, 62))


@pytest.mark.usefixtures("acme")
async def test_the_outbox_waits_for_the_limiter(ledger: Ledger) -> None:
    """F4: a revocation made while Redis is away reaches it once it is back, the newest version alone."""
    told: list[tuple[str, int]] = []

    async def away(account_id: str, version: int) -> None:
        raise Fault(LIMITER_UNAVAILABLE)

    async def back(account_id: str, version: int) -> None:
        told.append((account_id, version))

    await ledger.set_tier("acme", "premium", 1)
    await ledger.set_suspended("acme", True, 2)
    with pytest.raises(Fault):
        await apply_outbox(ledger, away)

    assert await apply_outbox(ledger, back) == 2
    assert told == [("acme", 3)]
    assert await apply_outbox(ledger, back) == 0


@pytest.mark.usefixtures("acme")
async def test_a_worker_empties_the_outbox_by_itself(ledger: Ledger) -> None:
    """F4: a change made while Redis was away counts once it is back, though nobody types the command again."""
    calls: list[int] = []
    told = asyncio.Event()

    async def away_at_first(account_id: str, version: int) -> None:
        calls.append(version)
        if len(calls) < 3:
            raise ValueError("whatever goes wrong")
        told.set()

    await ledger.set_tier("acme", "premium", 1)
    running = asyncio.create_task(run_outbox(ledger, away_at_first, interval_s=0.001))
    await asyncio.wait_for(told.wait(), 10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert calls == [2, 2, 2]
    await apply_outbox(ledger, _deaf)
    assert await ledger.pending_bumps() == []


async def test_a_ledger_that_cannot_be_opened_is_a_fault(tmp_path: Path) -> None:
    """D6: "cannot check" is told apart from "not allowed": never a 401, never a traceback."""
    ledger = Ledger.open(url_of(tmp_path / "nowhere" / "ledger.db"))

    for question in (ledger.ping(), ledger.credential("k"), ledger.set_tier("a", "b", 1)):
        with pytest.raises(Fault) as raised:
            await question
        assert raised.value.kind.code == "ledger_unavailable"
    await ledger.close()


async def test_a_ledger_answers_ping_and_opens_again_after_close(ledger: Ledger) -> None:
    """Readiness asks the ledger itself; a reload may close it and go on."""
    await ledger.ping()
    await ledger.close()
    await ledger.ping()


async def _deaf(account_id: str, version: int) -> None:
    """A limiter that takes every version."""
