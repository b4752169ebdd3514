"""What the link to Redis promises while the server is well: answers in order, few writes, errors on their own call."""

import asyncio
import random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.redis_address import ClusterPlace, RedisAddress, SentinelPlace, address_of, place_of
from gateway.quota.resp import RedisError, RedisLink
from gateway.quota.scripts import Script, run
from tests.support.valkey import ValkeyServer


async def test_replies_keep_their_types(link: RedisLink) -> None:
    """Bytes stay bytes, numbers numbers, nothing None: callers decode once, where they know what it is."""
    assert await link.call("SET", "k", b"\x00\xff\r\n") == b"OK"
    assert await link.call("GET", "k") == b"\x00\xff\r\n"
    assert await link.call("GET", "none") is None
    assert await link.call("INCRBY", "n", 7) == 7
    assert await link.call("RPUSH", "l", "ä", 2) == 2
    assert await link.call("LRANGE", "l", 0, -1) == ["ä".encode(), b"2"]
    assert await link.call("LRANGE", "none", 0, -1) == []


async def test_answers_reach_the_call_they_belong_to(link: RedisLink) -> None:
    """Thousands of calls at once never swap answers: one caller's count in another's hands would be a breach."""

    async def worker(name: int) -> None:
        for number in range(100):
            size = random.randrange(0, 3000)
            word = f"{name}:{number}:".encode() + b"x" * size
            assert await link.call("ECHO", word) == word

    await asyncio.gather(*[worker(name) for name in range(32)])


async def test_a_large_reply_arrives_whole(link: RedisLink) -> None:
    """Replies larger than one read are put together."""
    big = b"x" * 5_000_000
    await link.call("SET", "big", big)
    assert await link.call("GET", "big") == big


async def test_calls_of_one_turn_leave_in_one_write(link: RedisLink) -> None:
    """A busy gateway pays for one system call, not for hundreds."""
    transport = _Counting(link)
    replies = await asyncio.gather(*[link.call("ECHO", number) for number in range(500)])
    assert replies == [b"%d" % number for number in range(500)]
    assert transport.writes == 1


async def test_an_error_reply_fails_its_own_call(link: RedisLink) -> None:
    """One caller's mistake is nobody else's."""
    await link.call("SET", "text", "x")
    replies = await asyncio.gather(
        link.call("PING"),
        link.call("HGET", "text", "f"),
        link.call("NOSUCH"),
        link.call("PING"),
        return_exceptions=True,
    )
    assert replies[0] == replies[3] == b"PONG"
    assert isinstance(replies[1], RedisError)
    assert isinstance(replies[2], RedisError)
    assert (replies[1].code, replies[2].code) == ("WRONGTYPE", "ERR")
    assert "unknown command" in str(replies[2])


async def test_a_caller_who_left_disturbs_nobody(link: RedisLink) -> None:
    """A client that goes away while its call is under way doesn't shift the answers of the others."""
    left = link.call("ECHO", "left")
    left.cancel()
    assert await link.call("ECHO", "stays") == b"stays"


async def test_a_script_is_sent_by_digest_and_by_text_once(link: RedisLink) -> None:
    """The text travels only where the server doesn't know it."""
    script = Script("echo", b"return {KEYS[1], ARGV[1]}", "2fd1ba6d26ba31c0f7a85da1a4cb7b8ab8ab5f25")
    replies = await asyncio.gather(*[run(link, script, ("k",), (number,)) for number in range(3)])
    assert replies == [[b"k", b"0"], [b"k", b"1"], [b"k", b"2"]]


async def test_a_scripts_own_error_is_not_taken_for_an_unknown_script(link: RedisLink) -> None:
    """A script that fails runs once."""
    script = Script("bad", b"redis.call('INCR', KEYS[1]) return redis.error_reply('OOPS no')", "0" * 40)
    with pytest.raises(RedisError, match="OOPS no") as caught:
        await run(link, script, ("count",), ())
    assert caught.value.code == "OOPS"
    assert await link.call("GET", "count") == b"1"


async def test_the_link_uses_the_database_and_name_it_was_given(valkey: ValkeyServer) -> None:
    """Two gateways share a server by database, and an operator sees in CLIENT LIST who is who."""
    other = RedisLink(f"{valkey.url}?db=3", client_name="tollway-7", timeout_s=5)
    await other.open()
    listed = (await other.call("CLIENT", "INFO")).decode()
    assert " name=tollway-7 " in listed
    assert " db=3 " in listed
    await other.close()


async def test_a_wrong_password_is_told_plainly(valkey: ValkeyServer) -> None:
    """An operator who mistyped a secret reads so, and the secret isn't in the text."""
    wrong = RedisLink(valkey.url.replace("unix://", "unix://default:mist%40ke@"), timeout_s=5)
    valkey.call(b"CONFIG SET requirepass right")
    try:
        with pytest.raises(Fault, match="WRONGPASS") as caught:
            await wrong.open()
        assert caught.value.kind is LIMITER_UNAVAILABLE
        assert "mist" not in caught.value.internal
        right = RedisLink(valkey.url.replace("unix://", "unix://:right@"), timeout_s=5)
        await right.open()
        await right.call("CONFIG", "SET", "requirepass", "")
        await right.close()
    finally:
        await wrong.close()


async def test_closing_twice_is_closing_once(valkey: ValkeyServer) -> None:
    """Shutting down is safe from every path, and what is asked afterwards fails at once."""
    link = RedisLink(valkey.url, timeout_s=5)
    await link.close()
    await link.open()
    pending = link.call("PING")
    await link.close()
    await link.close()
    for call in (pending, link.call("PING")):
        with pytest.raises(Fault, match="closed"):
            await call
    assert not link.connected


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://cache", "cache:6379"),
        ("redis://user:p%40ss@cache:7000/2", "cache:7000"),
        ("redis://[::1]:7000", "::1:7000"),
        ("unix:///run/redis.sock?db=4", "/run/redis.sock"),
        ("unix://:secret@/run/redis.sock", "/run/redis.sock"),
    ],
)
def test_addresses(url: str, shown: str) -> None:
    """The URLs that every Redis client takes, and none of them shows its password."""
    address = address_of(url)
    assert str(address) == shown
    assert "p@ss" not in repr(address)
    assert "secret" not in repr(address)


def test_an_addresss_parts() -> None:
    """Percent-encoded credentials and the database are read as meant."""
    address = address_of("redis://us%3Aer:p%40ss%2F@cache:7000/2")
    assert (address.username, address.password, address.host, address.port) == ("us:er", "p@ss/", "cache", 7000)
    assert address.database == 2
    assert address_of("unix:///run/redis.sock?db=4").database == 4


@pytest.mark.parametrize(
    "url",
    [
        "cache:6379",
        "http://cache",
        "redis://",
        "redis://:secret@",
        "redis://cache:port",
        "redis://cache..local",
        "redis://:sec/ret@cache",
        "redis://cache/secret",
        "redis://cache?db=x",
        "redis://cache?ssl_cert=x",
        "unix://",
        "redis://:secret\u2100@cache",
        "rediss://cache?ssl_ca_certs=/nonexistent",
    ],
)
def test_a_wrong_address_is_refused(url: str) -> None:
    """A mistyped URL is told at the start, without the password in it."""
    with pytest.raises(ValueError, match=r".") as caught:
        address_of(url)
    assert "sec" not in str(caught.value)


def test_a_sentinel_addresss_parts() -> None:
    """Each sentinel has its own credentials and port, the master those of the URL, and TLS is for all of them."""
    place = place_of(
        "redis+sentinel://us%3Aer:p%40ss@one,[::1]:7000/my%2Fmain/3?sentinel_password=s%26p&sentinel_username=watch"
    )
    assert isinstance(place, SentinelPlace)
    assert [str(one) for one in place.sentinels] == ["one:26379", "::1:7000"]
    assert {(one.username, one.password, one.database) for one in place.sentinels} == {("watch", "s&p", 0)}
    assert place.service == "my/main"
    assert (place.server.username, place.server.password, place.server.database) == ("us:er", "p@ss", 3)
    assert "p@ss" not in repr(place)
    secure = place_of("rediss+sentinel://one/main")
    assert isinstance(secure, SentinelPlace)
    assert secure.server.ssl_context is not None
    assert secure.sentinels[0].ssl_context is not None


def test_a_cluster_addresss_parts() -> None:
    """Every seed is greeted with the URL's credentials, over TLS where it says so."""
    place = place_of("rediss+cluster://user:p%40ss@one,two:7000/")
    assert isinstance(place, ClusterPlace)
    assert [str(seed) for seed in place.seeds] == ["one:6379", "two:7000"]
    assert {(seed.username, seed.password) for seed in place.seeds} == {("user", "p@ss")}
    assert all(seed.ssl_context for seed in place.seeds)
    assert "p@ss" not in repr(place)
    plain = place_of("redis://one")
    assert isinstance(plain, RedisAddress)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis+sentinel://:secret@one,two", "names a service"),
        ("redis+sentinel://:secret@one,,two/main", "names a host"),
        ("redis+sentinel://:secret@one/main/x", "database is a number"),
        ("redis+sentinel://:secret@one/main?retry=1", "no option 'retry'"),
        ("redis+cluster://:secret@one:7000/2", "no database but 0"),
        ("redis+cluster://:secret@one:x", "percent-encoded"),
        ("unix+cluster:///secret", "redis\\+ or rediss\\+"),
        ("redis+ring://:secret@one", "begins with"),
        ("rediss+cluster://:secret@one?ssl_ca_certs=/nonexistent", "can't be read"),
        ("rediss://:secret@one?ssl_certfile=/nonexistent", "can't be used"),
        ("rediss://:secret@one?ssl_keyfile=/nonexistent", "can't be used"),
    ],
)
def test_a_wrong_address_of_many_is_told_plainly(url: str, told: str) -> None:
    """An operator reads what to mend, and no secret."""
    with pytest.raises(ValueError, match=told) as caught:
        place_of(url)
    assert "secret" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    """Nothing an operator writes makes the start fail in another way."""
    for scheme in ("", "redis://", "unix://", "redis+sentinel://", "redis+cluster://"):
        try:
            place_of(scheme + text)
        except ValueError:
            continue


class _Counting:
    """Stands between a link and its transport, and counts the writes."""

    def __init__(self, link: RedisLink) -> None:
        wire = link._wire
        assert wire is not None
        self.writes = 0
        self._transport = wire._transport
        wire._transport = self  # type: ignore[assignment]  # a transport in all that is asked of it

    def write(self, data: bytes) -> None:
        self.writes += 1
        self._transport.write(data)

    def close(self) -> None:
        self._transport.close()
