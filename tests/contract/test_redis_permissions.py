"""A Redis user with the permissions that the handbook lists, and no others, is enough; one that lacks any is told."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from structlog.testing import capture_logs

from gateway.domain.usage import UsageEvent
from gateway.quota.keys import Keyspace
from gateway.quota.metered import MeteredRequests, Trace
from gateway.quota.resp import RedisError, RedisLink
from gateway.quota.scripts import forbidden, preloading
from tests.support.limiters import Clock, RedisSubject, admit, asked, hydrate, line, settled, told
from tests.support.stand import stand
from tests.support.valkey import ValkeyServer

HANDBOOK = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
FOUND = re.search(r"^ACL SETUSER (.+)$", HANDBOOK, re.MULTILINE)
assert FOUND is not None
USER = tuple(FOUND[1].split(" "))
NEEDED = [word for word in USER if re.fullmatch(r"\+[a-z|]+", word)]
COMFORT = {"+client|setname", "+script|load", "+role", "+cluster|slots", "+asking"}


@pytest.fixture
async def user(link: RedisLink, valkey: ValkeyServer) -> AsyncIterator[RedisLink]:
    """A link as the handbook's user, which a test may deprive."""
    await link.call("ACL", "SETUSER", *USER)
    opened = RedisLink(valkey.url.replace("unix://", "unix://tollway:password@"), timeout_s=5, at_connect=preloading())
    await opened.open()
    yield opened
    await opened.close()
    await link.call("ACL", "DELUSER", "tollway")


async def metered(user: RedisLink, subject: RedisSubject, event: UsageEvent) -> None:
    """Report and charge a request of an app's own, as the same user; its event is taken off the stream."""
    requests = MeteredRequests(user, Keyspace("tw", 8), subject.limiter)
    await requests.charge(await requests.report(event), (), Trace())
    assert (await requests.find(event.account_id, event.request_id)).charged


async def test_the_handbooks_user_may_do_all_that_is_asked_for(user: RedisLink, link: RedisLink) -> None:
    """Every verb and the usage stream run under the listed permissions, so that an operator can grant the least."""
    assert await forbidden(user, "tw") == ""
    subject = RedisSubject(user, Clock())
    start_s = subject.clock.now_s
    await hydrate(subject)
    event = told("r2", start_s * 1000, 5)
    request = asked("r1", line(start_s, 99, 5))
    await admit(subject, request)
    await subject.limiter.renew([])
    await subject.limiter.settle(settled(request, 3))
    await admit(subject, asked("r2", line(start_s, 99, 5), about=event))
    subject.clock.now_us += 61_000_000
    assert await subject.limiter.reap() == 1
    await metered(user, subject, told("r4", start_s * 1000, 5))
    await subject.limiter.settle(settled(asked("r2", line(start_s, 99, 5)), 4, event=msgspec.msgpack.encode(event)))
    await subject.limiter.bump("acme", 7)
    await subject.limiter.bump("stranger", 7)
    await subject.limiter.forget("nobody")
    assert await subject.stream.lead("one", 1000)
    assert await subject.stream.lead("one", 1000)
    assert await subject.stream.oldest_ms() is not None
    assert len(await subject.take_events()) == 3
    assert await subject.limiter.flushed_mark("stranger", 0) == "version 7"
    assert await link.call("SCRIPT", "FLUSH") == b"OK"
    await admit(subject, asked("r3", line(start_s, 99, 5), version=7))


@pytest.mark.parametrize("permission", [word for word in NEEDED if word not in COMFORT])
async def test_a_missing_permission_is_told_by_name(user: RedisLink, link: RedisLink, permission: str) -> None:
    """An operator reads at the start what is missing, not at night in a refusal that only one path meets."""
    command = permission[1:].partition("|")[0]
    await link.call("ACL", "SETUSER", "tollway", f"-{command}")
    assert command in (await forbidden(user, "tw")).lower()


async def test_comfort_may_be_left_out(link: RedisLink, valkey: ValkeyServer) -> None:
    """A server that forbids SCRIPT and CLIENT serves all the same."""
    await link.call("ACL", "SETUSER", *USER, "-client", "-script", "-role", "-cluster", "-asking")
    plain = RedisLink(valkey.url.replace("unix://", "unix://tollway:password@"), timeout_s=5, at_connect=preloading())
    await plain.open()
    assert await forbidden(plain, "tw") == ""
    with pytest.raises(RedisError, match="NOPERM"):
        await plain.call("SCRIPT", "LOAD", "return 1")
    await plain.close()
    await link.call("ACL", "DELUSER", "tollway")


async def test_keys_of_others_are_told(user: RedisLink) -> None:
    """A namespace that the user's key pattern doesn't cover is seen at the start."""
    assert "NOPERM" in await forbidden(user, "other") or "may not run" in await forbidden(user, "other")


async def test_a_gateway_says_at_its_start_what_it_may_not_do(
    tmp_path: Path, link: RedisLink, valkey: ValkeyServer
) -> None:
    """The log names the permission once, before the first request is refused for its lack."""
    await link.call("ACL", "SETUSER", *USER, "-xadd", "-evalsha")
    try:
        with capture_logs() as told_by_log:
            async with stand(tmp_path, Named(valkey.url.replace("unix://", "unix://tollway:password@")), 9):
                pass
    finally:
        await link.call("ACL", "DELUSER", "tollway")
    events = [event["detail"] for event in told_by_log if event["event"] == "limiter_forbids"]
    assert len(events) == 1
    assert "evalsha" in events[0]
    assert "password" not in str(told_by_log)


class Named(NamedTuple):
    """A server by its URL."""

    url: str
