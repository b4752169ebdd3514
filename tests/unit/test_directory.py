"""Keys in memory: found fast, refused exactly, forgotten at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.domain.accounts import ApiKey, Caller
from gateway.domain.entitlements import Credential, Entitled, Standing
from gateway.domain.faults import LEDGER_UNAVAILABLE, Fault
from gateway.identity import directory as module
from gateway.identity.directory import Directory
from gateway.identity.keys import new_key
from gateway.ledger.ledger import Ledger
from tests.support.ledgers import url_of

DIGEST_KEY = b"k" * 32
NOW_S = 1_795_262_400.0


class Clock:
    """A clock that only tests move."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        """Seconds."""
        return self.now_s


class CountedLedger(Ledger):
    """The real ledger, which counts reads, may be held up in mid-read, and may be down."""

    reads = 0
    down = False
    gate: asyncio.Event | None = None

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.has_read = asyncio.Event()

    async def credential(self, key_id: str) -> Credential | None:
        """Read; with a `gate`, keep the answer back until it opens."""
        self.reads += 1
        if self.down:
            raise Fault(LEDGER_UNAVAILABLE, "down")
        found = await super().credential(key_id)
        self.has_read.set()
        if self.gate is not None:
            await self.gate.wait()
        return found


@pytest.fixture
async def ledger(ledger_path: Path) -> AsyncIterator[CountedLedger]:
    """A ledger with one account, `acme`, on tier free."""
    opened = CountedLedger.open(url_of(ledger_path))
    await opened.create_account("acme", "free", "", 1)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    """The directory's monotonic clock."""
    return Clock(1000.0)


@pytest.fixture
def wall() -> Clock:
    """The wall clock that expiries are read by."""
    return Clock(NOW_S)


@pytest.fixture
def directory(ledger: CountedLedger, clock: Clock, wall: Clock) -> Directory:
    """Empty, with a minute's freshness."""
    return Directory(ledger, DIGEST_KEY, clock=clock, wall_clock=wall)


async def a_key(ledger: Ledger, *, expires_s: float | None = None) -> tuple[str, bytes]:
    """A fresh key of `acme`: its id and its text."""
    key_id, text, digest = new_key(DIGEST_KEY)
    expires_ms = None if expires_s is None else int(expires_s * 1000)
    await ledger.create_key(ApiKey(key_id, "acme", digest, "", 1, expires_ms))
    return key_id, text.encode()


async def refusal(directory: Directory, token: bytes) -> str:
    """The code with which a key is refused."""
    with pytest.raises(Fault) as raised:
        await directory.identify(token)
    return raised.value.kind.code


async def test_a_key_is_read_once_and_then_known(ledger: CountedLedger, directory: Directory) -> None:
    """F4: a caller is who the ledger says, and a minute of requests costs the ledger one read."""
    key_id, token = await a_key(ledger)
    assert directory.known(token) is None

    caller = await directory.identify(token)

    assert caller == Caller("acme", key_id, "free", version=2)
    assert directory.known(token) is caller
    assert await directory.identify(token) is caller
    assert ledger.reads == 1


async def test_what_is_known_is_read_again_after_a_minute(
    ledger: CountedLedger, directory: Directory, clock: Clock
) -> None:
    """A change that no message told of counts after a minute at the latest."""
    _, token = await a_key(ledger)
    await directory.identify(token)
    await ledger.set_tier("acme", "premium", 2)

    clock.now_s += 59.9
    assert directory.known(token) is not None
    clock.now_s += 0.1
    assert directory.known(token) is None
    assert (await directory.identify(token)).tier == "premium"


async def test_a_wrong_secret_is_invalid_whatever_the_key_is(ledger: CountedLedger, directory: Directory) -> None:
    """A stranger who knows a key's id learns nothing of its state, and costs the ledger nothing per try."""
    key_id, token = await a_key(ledger)
    forged = token[:16] + b"x" * 40
    await directory.identify(token)

    assert directory.known(forged) is None
    assert await refusal(directory, forged) == "invalid_api_key"
    assert ledger.reads == 1

    await ledger.revoke_key(key_id, 9)
    directory.forget("acme")
    assert await refusal(directory, forged) == "invalid_api_key"
    assert await refusal(directory, token) == "revoked_api_key"


@pytest.mark.parametrize("token", [b"", b"sk-proj-xyz", b"tw_abc", b"tw_abcdefghijkl_" + b"s" * 41, b"\xff" * 56])
async def test_what_is_no_key_never_reaches_the_ledger(
    ledger: CountedLedger, directory: Directory, token: bytes
) -> None:
    """A flood of rubbish costs no database read."""
    assert directory.known(token) is None
    assert await refusal(directory, token) == "invalid_api_key"
    assert ledger.reads == 0


async def test_a_revoked_key_is_refused_from_the_next_request(ledger: CountedLedger, directory: Directory) -> None:
    """F4, C3: once the account's version told of it, not one more request passes with a revoked key."""
    key_id, token = await a_key(ledger)
    await directory.identify(token)
    await ledger.revoke_key(key_id, 9)

    directory.forget("acme")

    assert directory.known(token) is None
    assert await refusal(directory, token) == "revoked_api_key"
    assert directory.known(token) is None, "a refused key is never known"


async def test_a_suspended_account_is_told_so_and_let_in_again(
    ledger: CountedLedger, directory: Directory, clock: Clock
) -> None:
    """A resumed customer gets in within a second, though no message reaches a gateway that refuses all it sends."""
    _, token = await a_key(ledger)
    await ledger.set_suspended("acme", True, 2)
    assert await refusal(directory, token) == "account_suspended"

    await ledger.set_suspended("acme", False, 3)
    clock.now_s += 1
    assert (await directory.identify(token)).account_id == "acme"


async def test_a_key_expires_on_the_second_though_it_is_known(
    ledger: CountedLedger, directory: Directory, clock: Clock, wall: Clock
) -> None:
    """F4: an expiry counts when it says, not when what is kept grows old."""
    _, token = await a_key(ledger, expires_s=NOW_S + 10)
    await directory.identify(token)

    clock.now_s, wall.now_s = clock.now_s + 9.9, wall.now_s + 9.9
    assert directory.known(token) is not None
    clock.now_s, wall.now_s = clock.now_s + 0.1, wall.now_s + 0.1
    assert directory.known(token) is None
    assert await refusal(directory, token) == "expired_api_key"


async def test_refused_keys_do_not_reach_the_ledger_each_time(ledger: CountedLedger, directory: Directory) -> None:
    """A client that goes on with a dead key must not load the database with each request."""
    _, expired = await a_key(ledger, expires_s=NOW_S - 1)
    for _ in range(20):
        assert await refusal(directory, expired) == "expired_api_key"

    assert ledger.reads == 1


async def test_unknown_ids_are_remembered_for_seconds(
    ledger: CountedLedger, directory: Directory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong key in a loop costs one read in five seconds; a flood of made-up ids can't fill the memory."""
    monkeypatch.setattr(module, "_MOST_UNKNOWN", 3)
    strangers = [new_key(DIGEST_KEY)[1].encode() for _ in range(5)]
    for _ in range(3):
        assert await refusal(directory, strangers[0]) == "invalid_api_key"
    assert ledger.reads == 1

    clock.now_s += 5
    assert await refusal(directory, strangers[0]) == "invalid_api_key"
    assert ledger.reads == 2

    for stranger in strangers:
        await refusal(directory, stranger)
    assert len(directory._unknown) == 3


async def test_many_requests_wait_for_one_read(ledger: CountedLedger, directory: Directory) -> None:
    """A start under full load asks the ledger once per key; a caller who leaves doesn't take the others' answer."""
    _, token = await a_key(ledger)
    ledger.gate = asyncio.Event()
    waiting = [asyncio.create_task(directory.identify(token)) for _ in range(50)]
    await ledger.has_read.wait()
    waiting[0].cancel()
    ledger.gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert ledger.reads == 1
    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(isinstance(answer, Caller) for answer in answers[1:])
    assert not directory._loading


async def test_a_read_that_a_change_overtook_is_not_kept(ledger: CountedLedger, directory: Directory) -> None:
    """F4: a key revoked while it was being read must not be let in for the next minute on the old answer."""
    key_id, token = await a_key(ledger)
    ledger.gate = asyncio.Event()
    reading = asyncio.create_task(directory.identify(token))
    await ledger.has_read.wait()

    await ledger.revoke_key(key_id, 9)
    directory.forget("acme")
    ledger.gate.set()
    await asyncio.gather(reading, return_exceptions=True)

    assert directory.known(token) is None
    assert await refusal(directory, token) == "revoked_api_key"


async def test_a_silent_ledger_lets_the_known_in_for_ten_minutes(
    ledger: CountedLedger, directory: Directory, clock: Clock
) -> None:
    """D6: a database restart refuses nobody who called lately, and nobody waits for it on each request."""
    _, token = await a_key(ledger)
    caller = await directory.identify(token)
    ledger.down = True

    clock.now_s += 60
    assert await directory.identify(token) == caller
    reads = ledger.reads
    assert directory.known(token) == caller
    assert ledger.reads == reads

    clock.now_s += 539
    assert await directory.identify(token) == caller
    clock.now_s += 1
    assert await refusal(directory, token) == "ledger_unavailable"

    ledger.down = False
    assert await directory.identify(token) == caller


async def test_a_silent_ledger_never_revives_what_changed(ledger: CountedLedger, directory: Directory) -> None:
    """What is known to be outdated is not served while the ledger is down: "cannot check" is 503, not yes or 401."""
    _, token = await a_key(ledger)
    await directory.identify(token)
    ledger.down = True

    directory.forget("acme")

    assert await refusal(directory, token) == "ledger_unavailable"
    assert await refusal(directory, new_key(DIGEST_KEY)[1].encode()) == "ledger_unavailable"


async def test_a_silent_ledger_does_not_outlive_an_expiry(
    ledger: CountedLedger, directory: Directory, clock: Clock
) -> None:
    """F4: an expired key stays expired while the ledger is down."""
    _, token = await a_key(ledger, expires_s=NOW_S + 100)
    await directory.identify(token)
    ledger.down = True

    clock.now_s += 100
    assert directory.known(token) is None
    assert await refusal(directory, token) == "expired_api_key"


async def test_memory_is_bounded_and_ends_empty(
    ledger: CountedLedger, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway with millions of keys keeps the latest; forgetting an account leaves nothing of it."""
    monkeypatch.setattr(module, "_MOST_KEYS", 2)
    tokens = [(await a_key(ledger))[1] for _ in range(4)]
    for token in tokens:
        await directory.identify(token)

    assert [directory.known(token) is not None for token in tokens] == [False, False, True, True]

    directory.forget("acme")
    directory.forget("never seen")
    assert not directory._keys
    assert not directory._of_account


async def test_what_changes_by_the_clock_needs_no_ledger(ledger: CountedLedger, clock: Clock, wall: Clock) -> None:
    """D3: a tier that ends at a second is worked out anew at that second, once, ledger or no ledger; until then the hot
    path pays nothing for it.
    """  # noqa: D205
    asked: list[int] = []

    def entitle(standing: Standing, now_s: int, _: ApiKey) -> Entitled:
        asked.append(now_s)
        over_s = int(NOW_S) + 5
        return Entitled("pro", "own plan", over_s) if now_s < over_s else Entitled(standing.account.tier)

    directory = Directory(ledger, DIGEST_KEY, entitle=entitle, clock=clock, wall_clock=wall)
    key_id, token = await a_key(ledger)
    caller = await directory.identify(token)
    assert caller == Caller("acme", key_id, "pro", 2, "own plan")
    ledger.down = True

    for moment in (clock, wall):
        moment.now_s += 4.9
    assert directory.known(token) is caller
    for moment in (clock, wall):
        moment.now_s += 0.1
    assert directory.known(token) is None
    after = await directory.identify(token)

    assert after == Caller("acme", key_id, "free", 2)
    assert directory.known(token) is after
    assert (asked, ledger.reads) == ([int(NOW_S), int(NOW_S) + 5], 1)


async def test_a_silent_ledger_does_not_outlive_a_subscription(
    ledger: CountedLedger, clock: Clock, wall: Clock
) -> None:
    """D3: while the database restarts, what was bought still ends at its second."""

    def entitle(standing: Standing, now_s: int, _: ApiKey) -> Entitled:
        over_s = int(NOW_S) + 100
        return Entitled("pro", None, over_s) if now_s < over_s else Entitled(standing.account.tier)

    directory = Directory(ledger, DIGEST_KEY, entitle=entitle, clock=clock, wall_clock=wall)
    _, token = await a_key(ledger)
    await directory.identify(token)
    ledger.down = True

    tiers = []
    for _ in range(3):
        for moment in (clock, wall):
            moment.now_s += 50
        tiers.append((await directory.identify(token)).tier)

    assert tiers == ["pro", "free", "free"]
