"""Guessing is slowed, and nobody who has a good key pays for it (F4)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.domain.accounts import ApiKey
from gateway.domain.faults import Fault
from gateway.identity.directory import Directory
from gateway.identity.guesses import MOST, Guesses
from gateway.identity.keys import new_key
from gateway.ledger.ledger import Ledger
from tests.support.ledgers import url_of

DIGEST_KEY = b"k" * 32
HERE = ("192.0.2.1", 4000)
WRONG = b"nothing like a key"


class Clock:
    """Seconds that only a test moves."""

    now_s = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now_s


class CountedLedger(Ledger):
    """The real ledger, which counts reads."""

    reads = 0

    async def credential(self, key_id: str):  # type: ignore[no-untyped-def]  # noqa: ANN201  # as the ledger's
        """Read."""
        self.reads += 1
        return await super().credential(key_id)


@pytest.fixture
async def ledger(ledger_path: Path) -> AsyncIterator[CountedLedger]:
    """A ledger with one account, `acme`."""
    opened = CountedLedger.open(url_of(ledger_path))
    await opened.create_account("acme", "free", "", 1)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    """The clock of the directory and of what stands in front of it."""
    return Clock()


@pytest.fixture
def guesses(ledger: CountedLedger, clock: Clock) -> Guesses:
    """Three wrong ones in a minute."""
    return Guesses(Directory(ledger, DIGEST_KEY, clock=clock), 3, 60, clock)


async def a_key(ledger: Ledger) -> bytes:
    """A fresh key of `acme`."""
    key_id, text, digest = new_key(DIGEST_KEY)
    await ledger.create_key(ApiKey(key_id, "acme", digest, "", 1))
    return text.encode()


async def said(guesses: Guesses, token: bytes, client: tuple[str, int] | None = HERE) -> tuple[str, int | None]:
    """The code of the answer, and how long to wait."""
    try:
        await guesses.identify(token, client)
    except Fault as fault:
        return fault.kind.code, fault.retry_after_s
    return "ok", None


async def test_an_address_that_guesses_is_slowed(guesses: Guesses, ledger: CountedLedger, clock: Clock) -> None:
    """After the last free guess one more is looked at each third of a minute, as the answer says; the ledger is not
    asked in between, and other addresses notice nothing.
    """  # noqa: D205
    wrong = [new_key(DIGEST_KEY)[1].encode() for _ in range(8)]
    assert [(await said(guesses, one))[0] for one in wrong[:3]] == ["invalid_api_key"] * 3
    assert await said(guesses, wrong[3]) == ("too_many_guesses", 21)
    assert (ledger.reads, guesses.slowed, guesses.wrong) == (3, 1, 3)
    assert (await said(guesses, WRONG, ("192.0.2.2", 1)))[0] == "invalid_api_key"

    clock.now_s += 20
    assert (await said(guesses, wrong[4]))[0] == "invalid_api_key"
    assert (await said(guesses, wrong[5]))[0] == "too_many_guesses"
    clock.now_s += 60
    assert [(await said(guesses, one))[0] for one in wrong[5:8]] == ["invalid_api_key"] * 3


async def test_a_key_that_is_known_is_never_refused(guesses: Guesses, ledger: CountedLedger, clock: Clock) -> None:
    """An office's app goes on while a colleague's script guesses from the same address, also past the minute after
    which its key is read again; a key that this process never saw waits.
    """  # noqa: D205
    known, unseen = await a_key(ledger), await a_key(ledger)
    assert await said(guesses, known) == ("ok", None)
    for _ in range(5):
        await said(guesses, WRONG)
    assert await said(guesses, known) == ("ok", None)
    clock.now_s += 19
    assert (await said(guesses, unseen))[0] == "too_many_guesses"
    clock.now_s += 1.5
    assert await said(guesses, unseen) == ("ok", None)
    clock.now_s += 61
    for _ in range(5):
        await said(guesses, WRONG)
    assert await said(guesses, known) == ("ok", None)


async def test_the_table_is_bounded(guesses: Guesses) -> None:
    """A hundred thousand addresses cost what sixteen thousand do; the latest are those that stay slowed."""
    for number in range(100_000):
        await said(guesses, WRONG, (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1))
    assert len(guesses) == MOST

    for _ in range(4):
        last = await said(guesses, WRONG, ("10.1.134.159", 1))
    assert last[0] == "too_many_guesses"
    assert len(guesses) == MOST


async def test_the_addresses_of_one_customer_count_together(guesses: Guesses) -> None:
    """Whoever has an IPv6 network has 2^64 addresses; an IPv4 address is the same written as IPv6."""
    for number in range(3):
        await said(guesses, WRONG, (f"2001:db8::{number}", 1))
        await said(guesses, WRONG, ("::ffff:192.0.2.9", 1))
    assert (await said(guesses, WRONG, ("2001:db8::ffff", 1)))[0] == "too_many_guesses"
    assert (await said(guesses, WRONG, ("2001:db8:0:1::1", 1)))[0] == "invalid_api_key"
    assert (await said(guesses, WRONG, ("192.0.2.9", 1)))[0] == "too_many_guesses"


async def test_it_can_be_turned_off(ledger: CountedLedger) -> None:
    """Where the network in front does it, nobody is slowed twice; a peer without an address is nobody to slow."""
    off = Guesses(Directory(ledger, DIGEST_KEY), 0, 60)
    assert {(await said(off, WRONG))[0] for _ in range(20)} == {"invalid_api_key"}
    on = Guesses(Directory(ledger, DIGEST_KEY), 1, 60)
    assert {(await said(on, WRONG, None))[0] for _ in range(20)} == {"invalid_api_key"}
    assert (off.wrong, len(off), len(on)) == (20, 0, 0)
