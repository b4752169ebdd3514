"""`tollway stripe sync` over many pages, by a Stripe that refuses, fails, breaks off and falls silent on the way."""

import asyncio
import sys
from pathlib import Path

from gateway.billing import stripe_api
from gateway.domain.accounts import Account
from gateway.domain.audit import SYSTEM
from gateway.ledger.arrivals import Arrival
from gateway.ledger.ledger import Ledger
from gateway.ledger.schema import ensure_schema
from tests.support.ledgers import NOON_MS, url_of
from tests.support.local_stripe import KEY
from tests.support.odd_peer import Visit
from tests.support.paged_stripe import PAGE, PagedStripe, Trouble, account_of, answer, paged_stripe

LIMITED = b'{"error": {"type": "invalid_request_error", "message": "Too many requests"}}'
FAILED = b'{"error": {"type": "api_error", "message": "It is not you"}}'
PROGRAM = """
import sys
from pathlib import Path
from gateway.__main__ import main
from gateway.billing import stripe_api
stripe_api.FIRST_PAUSE_S = 0.01
status = main(sys.argv[1:])
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])
sys.exit(status)
"""
"""The command with short pauses; its last line is the most memory that it held, in KiB."""


def ask(home: Path, stripe: PagedStripe, timeout_s: float = 10) -> None:
    """Let the settings name it."""
    file = home / "gateway.yaml"
    others = [line for line in file.read_text().splitlines() if not line.startswith("stripe:")]
    named = f"stripe: {{ api_key: {KEY}, api_base: '{stripe.url}', timeout_s: {timeout_s} }}"
    file.write_text("\n".join([*others, named, ""]))


async def settled(home: Path, stripe: PagedStripe, accounts: int, *, timeout_s: float = 10) -> None:
    """Settings that name it, and a ledger with the accounts of its subscriptions."""
    ask(home, stripe, timeout_s)
    (home / "data").mkdir()
    url = url_of(home / "data" / "ledger.db")
    await ensure_schema(url)
    ledger = Ledger.open(url)
    made = [Account(account_of(one), "", "free", False, 1, NOON_MS) for one in range(accounts)]
    await ledger.take_arrivals([Arrival(one) for one in made], SYSTEM, NOON_MS)
    await ledger.close()


async def sync(*words: str) -> tuple[int, list[str], str, int]:
    """Exit status, lines on standard output, standard error, and the most memory in KiB."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        "stripe",
        "sync",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, said = await process.communicate()
    *lines, memory_kib = told.decode().splitlines()
    return process.returncode or 0, lines, said.decode(), int(memory_kib)


async def known(home: Path) -> list[str]:
    """The ids of all subscriptions in the ledger."""
    ledger = Ledger.open(url_of(home / "data" / "ledger.db"))
    found = [one.id for one in await ledger.list_subscriptions(limit=10_000)]
    await ledger.close()
    return found


def fails(status: int, body: bytes, *fields: str) -> Trouble:
    """An answer that says itself that the connection ends with it: no later request may be sent over it."""
    return says(answer(status, body, "Connection: close", *fields))


def says(*reply: bytes) -> Trouble:
    """The connection gets these bytes and ends."""

    async def trouble(visit: Visit) -> None:
        await visit.say(*reply)

    return trouble


async def silence(visit: Visit) -> None:
    """Nothing comes until the client has had enough."""
    await visit.client_gone()


async def reset(visit: Visit) -> None:
    """The connection breaks."""
    visit.reset()


def expected(count: int) -> list[str]:
    """The ids of so many subscriptions, as the ledger sorts them."""
    return sorted(f"sub_{one}" for one in range(count))


async def test_sync_goes_on_where_stripe_failed_it(home: Path) -> None:
    """Rate limits, errors, cuts and silence in the midst of a pass: each page is asked for again, none is left out."""
    half = answer(200, b'{"object": "list", "data": [' + b" " * 500)[:-200]
    troubles = {
        2: fails(429, LIMITED, "Retry-After: 1"),
        3: fails(429, LIMITED),
        5: fails(500, FAILED),
        6: fails(503, b"<html>upstream connect error</html>"),
        8: says(half),
        9: reset,
        11: silence,
        12: fails(200, b"<html>a captive portal</html>"),
        13: fails(200, b'{"object": "list"}'),
    }
    async with paged_stripe(4 * PAGE, troubles) as stripe:
        await settled(home, stripe, 4 * PAGE, timeout_s=5)
        status, lines, said, _ = await sync()

    assert (status, lines[-1]) == (0, "400 subscriptions, 400 differed, 400 mended, 0 of no known account"), said
    assert await known(home) == expected(400)
    assert [stripe.cursors.count(f"sub_{last}") for last in (99, 199, 299, 399)] == [3, 3, 3, 4]
    assert said.count("; again in") == len(troubles)
    assert "Stripe answered 429 (RateLimitError), and asks to wait 1 s; again in 1.0 s" in said
    assert "Stripe did not answer (APIConnectionError); again in" in said


async def test_sync_asks_again_for_one_that_is_gone(home: Path) -> None:
    """A subscription that Stripe lists no more is over once Stripe says so, not because it had no time to say it."""
    busy = [answer(429, LIMITED), answer(500, FAILED)]
    async with paged_stripe(2) as more, paged_stripe(1) as fewer:
        await settled(home, more, 2)
        assert (await sync())[0] == 0
        ask(home, fewer)
        fewer.look_ups += busy
        status, lines, said, _ = await sync()
        again = await sync()

    assert (status, said.count("; again in")) == (0, 2)
    assert lines == [
        "sub_1  account-000001  healed: gone at Stripe",
        "1 subscriptions, 1 differed, 1 mended, 0 of no known account",
    ]
    assert again[1] == ["1 subscriptions, 0 differed, 0 mended, 0 of no known account"]


async def test_sync_waits_no_longer_than_is_sensible(home: Path) -> None:
    """Stripe asks for an hour: the command ends with what it asked for, says how far it came, and keeps that."""
    troubles = {3: fails(429, LIMITED, "Retry-After: 3600")}
    async with paged_stripe(3 * PAGE, troubles) as stripe:
        await settled(home, stripe, 3 * PAGE)
        status, lines, said, _ = await sync()

        assert status == 1
        assert lines[-1].startswith("ended early, after 200 subscriptions, 200 differed, 200 mended")
        assert said == "tollway: Stripe answered 429 (RateLimitError), and asks to wait 3,600 s\n"
        assert len(await known(home)) == 200

        status, lines, _, _ = await sync()

    assert (status, lines) == (0, [*lines[:100], "300 subscriptions, 100 differed, 100 mended, 0 of no known account"])
    assert await known(home) == expected(300)


async def test_sync_gives_up_on_a_stripe_that_stays_away(home: Path) -> None:
    """Who runs it from cron gets a status that is not 0 and a line that says why; a wrong key isn't tried again."""
    failing: dict[int, Trouble] = dict.fromkeys(range(2, 100), fails(500, FAILED))
    async with paged_stripe(2 * PAGE, failing) as stripe:
        await settled(home, stripe, 2 * PAGE)
        status, lines, said, _ = await sync()

    assert (status, len(stripe.cursors)) == (1, 1 + stripe_api.ATTEMPTS)
    assert lines[-1].startswith("ended early, after 100 subscriptions")
    assert said.splitlines()[-1] == "tollway: Stripe answered 500 (APIError)"

    wrong = fails(401, b'{"error": {"message": "Invalid API Key provided: sk_test_*2345"}}')
    async with paged_stripe(2 * PAGE, {1: wrong}) as stripe:
        ask(home, stripe)
        status, _, said, _ = await sync()

    assert (status, said) == (1, "tollway: Stripe answered 401 (AuthenticationError)\n")
    assert KEY not in said


async def test_memory_does_not_grow_with_the_number_of_subscriptions(home: Path) -> None:
    """A pass over ten times as many holds a page at a time: a list of all would take 15 KiB for each."""
    async with paged_stripe(300) as few:
        await settled(home, few, 3_000)
        status, lines, said, few_kib = await sync()
    assert (status, lines[-1].partition(",")[0]) == (0, "300 subscriptions"), said

    async with paged_stripe(3_000) as many:
        ask(home, many)
        status, lines, said, many_kib = await sync()

    assert (status, lines[-1].partition(" mended")[0]) == (0, "3,000 subscriptions, 2,700 differed, 2,700"), said
    assert many_kib - few_kib < 16_384
