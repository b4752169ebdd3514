"""The command line: accounts, keys and usage, as an operator types them."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import gateway
from gateway.__main__ import COMMANDS
from gateway.domain.decisions import Counter, Line, Reservation
from gateway.domain.usage import UsageEvent
from gateway.ledger.ledger import Ledger
from gateway.quota.redis_limiter import RedisLimiter
from gateway.quota.resp import RedisLink
from tests.support.command_line import SETTINGS, Tollway
from tests.support.ledgers import an_event, packed, url_of
from tests.support.valkey import ValkeyServer


def on_redis(valkey: ValkeyServer, act: Callable[[RedisLink], Awaitable[object]]) -> object:
    """Do something on the server."""

    async def run() -> object:
        link = RedisLink(valkey.url, timeout_s=20)
        await link.open()
        try:
            return await act(link)
        finally:
            await link.close()

    return asyncio.run(run())


def used_now(request_id: str, **fields: object) -> UsageEvent:
    """An event of this moment."""
    now_ms = time.time_ns() // 1_000_000
    return an_event(request_id, admitted_ms=now_ms, settled_ms=now_ms, **fields)


def into_ledger(home: Path, *events: UsageEvent) -> None:
    """Flush events."""

    async def run() -> None:
        ledger = Ledger.open(url_of(home / "data" / "ledger.db"))
        await ledger.take_events(events)
        await ledger.close()

    asyncio.run(run())


def test_an_account_from_its_making_to_its_suspension(tollway: Tollway) -> None:
    """F7: an operator makes, finds, moves, suspends and resumes an account, and sees each change."""
    assert tollway("accounts", "create", "acme", "--tier", "premium", "--name", "Acme Inc")[0] == 0
    assert tollway("accounts", "create", "beta")[0] == 0

    status, out, _ = tollway("accounts", "list")
    assert status == 0
    assert [line.split()[:3] for line in out.splitlines()] == [
        ["ACCOUNT", "TIER", "STATE"],
        ["acme", "premium", "active"],
        ["beta", "free", "active"],
    ]

    assert "suspended" in tollway("accounts", "suspend", "acme")[1]
    assert "active" in tollway("accounts", "resume", "acme")[1]
    tollway("accounts", "set-tier", "acme", "free")
    shown = tollway("accounts", "show", "acme")[1]
    assert ["tier", "free"] in [line.split() for line in shown.splitlines()]
    assert ["version", "4"] in [line.split() for line in shown.splitlines()]


def test_a_key_is_shown_once_and_revoked(tollway: Tollway, home: Path) -> None:
    """F4: the key stands alone on standard output, for scripts; neither listing nor ledger can show it again."""
    tollway("accounts", "create", "acme")
    status, out, err = tollway("keys", "create", "acme", "--name", "ci", "--expires", "30d")
    key = out.strip()
    assert (status, len(key), key[:3], "once" in err) == (0, 56, "tw_", True)

    listed = tollway("keys", "list", "acme")[1]
    assert key[3:15] in listed
    assert key[16:] not in listed
    for file in (home / "data").rglob("*"):
        assert file.is_dir() or key[16:].encode() not in file.read_bytes()

    assert "revoked" in tollway("keys", "revoke", key)[1]
    assert "revoked" in tollway("keys", "show", key[3:15])[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("accounts", "create", "acme", "--tier", "gold"), "free, premium"),
        (("accounts", "create", "two words"), "1 to 128 letters, digits"),
        (("accounts", "create", "there"), "already"),
        (("accounts", "set-tier", "there", "gold"), "free, premium"),
        (("accounts", "show", "nobody"), "no account `nobody`"),
        (("keys", "create", "nobody"), "no account `nobody`"),
        (("keys", "create", "there", "--expires", "soon"), "like 30d"),
        (("keys", "show", "nokey"), "no key `nokey`"),
        (("keys", "revoke", "nokey"), "no key `nokey`"),
        (("usage", "nobody"), "no account `nobody`"),
        (("usage", "nobody", "--events", "3"), "no account `nobody`"),
        (("db", "downgrade", "base"), "--yes"),
        (("accounts", "list", "--file", "missing.yaml"), "missing.yaml"),
    ],
)
def test_wrong_input_is_one_clear_line(tollway: Tollway, words: tuple[str, ...], told: str) -> None:
    """Whoever mistypes is told what is wrong, and a script sees status 2, never a traceback."""
    tollway("accounts", "create", "there")

    status, out, err = tollway(*words)

    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert told in err


def test_a_change_reaches_the_limiter_before_the_command_ends(tollway: Tollway, valkey: ValkeyServer) -> None:
    """F4: once `keys revoke` returns, the next request on any gateway meets the new version, not a minute later."""
    tollway("accounts", "create", "acme")
    tollway("keys", "create", "acme")

    async def see(link: RedisLink) -> None:
        limiter = RedisLimiter(link, partitions=1)
        mark = await limiter.flushed_mark("acme", 1)
        assert await limiter.hydrate("acme", 1, (), int(time.time()) + 3600, mark)

    on_redis(valkey, see)
    tollway("accounts", "suspend", "acme")

    async def version(link: RedisLink) -> int | None:
        state = await RedisLimiter(link, partitions=1).peek("acme")
        return None if state is None else state[0]

    assert on_redis(valkey, version) == 3


@pytest.mark.usefixtures("without_redis")
def test_a_change_without_redis_waits_and_says_so(tollway: Tollway, home: Path) -> None:
    """An operator who revokes a key while Redis is down knows that it is not everywhere yet; nothing is lost."""
    tollway("accounts", "create", "acme")

    status, _, err = tollway("accounts", "suspend", "acme")

    assert status == 0
    assert "within a second" in err

    async def waiting() -> int:
        ledger = Ledger.open(url_of(home / "data" / "ledger.db"))
        bumps = await ledger.pending_bumps()
        await ledger.close()
        return len(bumps)

    assert asyncio.run(waiting()) == 1


def test_usage_tells_limits_and_totals(tollway: Tollway, home: Path) -> None:
    """B4: each limit with used, maximum, percent and reset time, then the day's and the month's tokens by kind."""
    tollway("accounts", "create", "acme")
    tollway("keys", "create", "acme")
    into_ledger(home, used_now("r1"), used_now("r2", input_tokens=200, output_tokens=20))

    status, out, _ = tollway("usage", "acme")
    rows = [line.split() for line in out.splitlines()]
    assert status == 0
    assert ["requests/hour", "2", "50", "4.0", "%"] in [row[:5] for row in rows]
    assert ["tokens/day", "250", "1,000", "25.0", "%"] in [row[:5] for row in rows]
    assert ["today", "2", "210", "40", "6", "8", "250"] in rows
    assert ["this", "month", "2", "210", "40", "6", "8", "250"] in rows

    report = json.loads(tollway("usage", "acme", "--json")[1])
    assert report["limits"][1] | {"resets_s": 0} == {
        "limit": "tokens/day",
        "used": 250,
        "settled": 250,
        "maximum": 1000,
        "percent": 25.0,
        "resets_s": 0,
    }
    assert report["limits"][1]["resets_s"] % 86_400 == 0
    assert report["today"]["tokens"] == 250
    assert (report["running"], report["backlog"]) == (0, 0)


def test_usage_counts_what_running_requests_hold(tollway: Tollway, valkey: ValkeyServer) -> None:
    """B4: what a stream holds while it runs can't be used again, so it is shown as used, beside what is settled."""
    tollway("accounts", "create", "acme")
    hour_s = int(time.time()) // 3600 * 3600

    async def hold(link: RedisLink) -> None:
        limiter = RedisLimiter(link, partitions=1)
        await limiter.hydrate("acme", 1, (Counter("requests/hour", hour_s, 0),), hour_s + 7200, "")
        line = Line("requests/hour", hour_s, hour_s + 3600, 50, 7)
        await limiter.reserve(Reservation("r1", "acme", 1, (line,)))

    on_redis(valkey, hold)

    report = json.loads(tollway("usage", "acme", "--json")[1])
    assert (report["limits"][0]["used"], report["limits"][0]["settled"], report["running"]) == (7, 0, 1)


def test_usage_says_what_is_not_in_the_ledger_yet(
    tollway: Tollway, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that lacks events says so: a customer is never shown less than was used without a word."""
    monkeypatch.setattr("gateway.cli.usage.FLUSH_PATIENCE_S", 0.05)
    tollway("accounts", "create", "acme")
    on_redis(valkey, lambda link: link.call("XADD", "tw:{0}:events", "*", "e", packed(used_now("r1"))))

    _, out, err = tollway("usage", "acme", "--json")

    assert "1 settled requests" in err
    assert json.loads(out)["backlog"] == 1


@pytest.mark.usefixtures("without_redis")
def test_usage_without_redis_shows_the_ledger(tollway: Tollway, home: Path) -> None:
    """Support can answer a customer while Redis is down, and is told what the answer lacks."""
    tollway("accounts", "create", "acme")
    into_ledger(home, used_now("r1"))

    status, out, err = tollway("usage", "acme")

    assert status == 0
    assert ["requests/hour", "1", "50"] in [line.split()[:3] for line in out.splitlines()]
    assert "Redis does not answer" in err


def test_usage_lists_the_latest_events(tollway: Tollway, home: Path) -> None:
    """D9: support sees an account's last requests, newest first, for people and for programs."""
    tollway("accounts", "create", "acme")
    into_ledger(home, *[used_now(f"r{number}", model=f"m{number}") for number in range(3)])

    out = tollway("usage", "acme", "--events", "2")[1]
    assert len(out.splitlines()) == 3
    events = json.loads(tollway("usage", "acme", "--events", "2", "--json")[1])
    assert len(events) == 2
    assert events[0]["account_id"] == "acme"
    assert events[0]["outcome"] == "ok"


def test_a_ledger_that_cannot_be_opened_ends_with_status_1(tollway: Tollway, home: Path) -> None:
    """A full disk or a wrong owner is one line for the operator, told apart from a typing error."""
    (home / "data" / "ledger.db").mkdir(parents=True)

    status, _, err = tollway("accounts", "list")

    assert status == 1
    assert err.startswith("tollway: ledger: ")
    assert err.count("\n") == 1


def test_settings_with_mistakes_are_told_whole(tollway: Tollway, home: Path) -> None:
    """Every mistake of the file at once, with its line."""
    (home / "gateway.yaml").write_text("listen: {prot: 1}\ntires: {}\n")

    status, _, err = tollway("accounts", "list")

    assert status == 2
    assert "gateway.yaml:1: listen.prot" in err
    assert "gateway.yaml:2: tires" in err


@pytest.mark.parametrize("words", [("accounts", "list"), ("serve", "--port", "0")])
def test_a_redis_address_that_cannot_be_used_is_one_clear_line(
    tollway: Tollway, home: Path, words: tuple[str, ...]
) -> None:
    """F7: a certificate that is not on this machine is told at once, without the password beside it."""
    redis = "rediss+cluster://:hunter2@one,two?ssl_ca_certs=/nonexistent.pem"
    (home / "gateway.yaml").write_text(SETTINGS.format(folder=home / "data", redis=redis))
    status, _, err = tollway(*words)
    assert status == 2
    assert "redis.url: ssl_ca_certs '/nonexistent.pem' can't be read" in err
    assert "hunter2" not in err


def test_the_settings_are_found_where_they_are_named(
    tollway: Tollway, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator may name the file before or after the command, or in the environment."""
    tollway("accounts", "create", "here")
    elsewhere = home / "other.yaml"
    text = SETTINGS.format(folder=home / "other", redis=f"unix://{home}/nobody.sock")
    elsewhere.write_text(text)

    assert "here" in tollway("accounts", "list")[1]
    assert "here" not in tollway("--file", str(elsewhere), "accounts", "list")[1]
    assert "here" not in tollway("accounts", "list", "--file", str(elsewhere))[1]
    monkeypatch.setenv("TOLLWAY_FILE", str(elsewhere))
    assert "here" not in tollway("accounts", "list")[1]


def test_help_and_version_need_nothing_but_themselves() -> None:
    """`tollway --version` answers at once: no database, web or Redis library is loaded for it, nor for another verb."""
    code = (
        "import sys; from gateway.__main__ import main; main(['--version']);"
        "sys.exit(any(name in sys.modules for name in ('sqlalchemy', 'hiredis', 'starlette', 'uvicorn', 'httpx')))"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("tollway ")


def test_without_a_command_the_commands_are_listed(tollway: Tollway) -> None:
    """A newcomer who types `tollway` sees what there is."""
    status, _, err = tollway()

    assert status == 2
    assert all(f"  {name} " in err for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(tollway: Tollway, name: str) -> None:
    """Each command that is listed is there and has help."""
    status, out, _ = tollway(name, "--help")

    assert status == 0
    assert f"usage: tollway {name}" in out


def test_a_reader_who_leaves_is_no_error(home: Path) -> None:
    """`tollway … | head -1` ends in silence."""
    command = f"{sys.executable} -m gateway accounts list | true"
    environment = os.environ | {"PYTHONPATH": str(Path(gateway.__file__).parents[1])}
    ended = subprocess.run(["/bin/sh", "-c", command], check=False, capture_output=True, env=environment, cwd=home)

    assert ended.stderr == b""
