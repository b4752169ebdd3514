"""Every step between reserve and commit at which a worker can be killed: where in the code that is, and what it costs.

One table, which `crashing.py` wraps the calls of, `tests/fault/test_crash_points.py` kills at one after the other, and
`docs/reliability.md` shows.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

from gateway.quota.journal_segment import Kind


class At(StrEnum):
    """When, of the call: before it, after it, or once what it wrote to its connection has left the process."""

    BEFORE = "before"
    AFTER = "after"
    SENT = "sent"


class Scene(StrEnum):
    """What goes on that leads to the step."""

    ASKS = "requests that are answered at once"
    STREAM = "a stream that goes on"
    REAP = "a stream whose lease ends"
    LATE = "a stream that ends after its lease"
    POISON = "an entry that is no event"
    OUTAGE = "Redis hangs"
    RETURN = "Redis comes back"
    HEIR = "Redis comes back to other workers"
    CHANGE = "an account moves to another tier"


class CrashPoint(NamedTuple):
    """One step. `only` looks at the call's arguments and, after the call, at its result.

    `sure` says that an answer which its caller has whole is charged in full, wherever the kill falls.
    """

    name: str
    scene: Scene
    call: str
    at: At
    only: Callable[[tuple[Any, ...], Any], bool] = lambda _arguments, _result: True
    sure: bool = True


def _of_script(verb: str) -> Callable[[tuple[Any, ...], Any], bool]:
    return lambda arguments, _: bool(arguments[0]._script.name == verb)


def _journaled(kind: Kind) -> Callable[[tuple[Any, ...], Any], bool]:
    return lambda arguments, _: bool(arguments[1].kind is kind)


def _found(_: tuple[Any, ...], result: Any) -> bool:
    return bool(result)


def _given(arguments: tuple[Any, ...], _: Any) -> bool:
    return bool(arguments[1])


_LIMITER = "gateway.quota.redis_limiter:RedisLimiter"
_BATCH = "gateway.quota.batch:Batch"
_STREAM = "gateway.quota.usage_stream:RedisUsageStream"
_BOOK = "gateway.ledger.usage:UsageBook"
_JOURNAL = "gateway.quota.journal:Journal"
_REPLAY = "gateway.quota.journal_replay"
_REAPING = "gateway.quota.redis_reaping:RedisReaping"

POINTS = (
    CrashPoint("account to be rebuilt", Scene.ASKS, f"{_LIMITER}.flushed_mark", At.AFTER),
    CrashPoint("account rebuilt", Scene.ASKS, f"{_LIMITER}.hydrate", At.AFTER),
    CrashPoint("reserve due", Scene.ASKS, f"{_LIMITER}.reserve", At.BEFORE),
    CrashPoint("reserve sent", Scene.ASKS, f"{_BATCH}._run", At.SENT, _of_script("reserve")),
    CrashPoint("reserve taken", Scene.ASKS, f"{_BATCH}._replied", At.BEFORE, _of_script("reserve")),
    CrashPoint("reserve answered", Scene.ASKS, f"{_LIMITER}.reserve", At.AFTER),
    CrashPoint("request forwarded", Scene.ASKS, "gateway.upstream.connection:Connection.begin", At.SENT),
    CrashPoint("answer begun", Scene.ASKS, "gateway.upstream.lean_transport:LeanTransport.send", At.AFTER),
    CrashPoint("first byte sent", Scene.ASKS, "gateway.edge.relay:Relay._send_head", At.AFTER),
    CrashPoint("mid-stream", Scene.STREAM, "gateway.dialects.openai_stream:OpenAIStream.feed", At.BEFORE),
    CrashPoint("renewal due", Scene.STREAM, f"{_LIMITER}.renew", At.BEFORE, _given),
    CrashPoint("renewal taken", Scene.STREAM, f"{_BATCH}._replied", At.BEFORE, _of_script("renew")),
    CrashPoint("extension due", Scene.STREAM, f"{_LIMITER}.extend", At.BEFORE),
    CrashPoint("extension taken", Scene.STREAM, f"{_BATCH}._replied", At.BEFORE, _of_script("extend")),
    CrashPoint("settle due", Scene.ASKS, "gateway.edge.settling:Settling.settle", At.BEFORE),
    CrashPoint("settle queued", Scene.ASKS, f"{_LIMITER}.settle", At.AFTER),
    CrashPoint("settle leaves", Scene.ASKS, f"{_BATCH}._run", At.BEFORE, _of_script("settle")),
    CrashPoint("settle sent", Scene.ASKS, f"{_BATCH}._run", At.SENT, _of_script("settle")),
    CrashPoint("settle taken", Scene.ASKS, f"{_BATCH}._replied", At.BEFORE, _of_script("settle")),
    CrashPoint("settle confirmed", Scene.ASKS, f"{_LIMITER}._confirm", At.AFTER),
    CrashPoint("reap due", Scene.REAP, f"{_REAPING}._reap_these", At.BEFORE, _given),
    CrashPoint("reap taken", Scene.REAP, f"{_REAPING}._reap_these", At.AFTER, _given),
    CrashPoint("late settle taken", Scene.LATE, f"{_BATCH}._replied", At.BEFORE, _of_script("late"), sure=False),
    CrashPoint("correction sent", Scene.LATE, f"{_BATCH}._run", At.SENT, _of_script("correct")),
    CrashPoint("correction taken", Scene.LATE, f"{_BATCH}._replied", At.BEFORE, _of_script("correct")),
    CrashPoint("events read", Scene.ASKS, f"{_STREAM}.read", At.AFTER, _found),
    CrashPoint("rows inserted", Scene.ASKS, "{store}.insert_events", At.AFTER),
    CrashPoint("sums added", Scene.ASKS, "{store}.add_sums", At.AFTER),
    CrashPoint("batch committed", Scene.ASKS, f"{_BOOK}.take_events", At.AFTER, _given),
    CrashPoint("poison set aside", Scene.POISON, f"{_BOOK}.set_aside", At.AFTER),
    CrashPoint("events deleted", Scene.ASKS, f"{_STREAM}.done", At.AFTER),
    CrashPoint("change to be told", Scene.CHANGE, f"{_LIMITER}.bump", At.BEFORE),
    CrashPoint("change told", Scene.CHANGE, f"{_LIMITER}.bump", At.AFTER),
    CrashPoint("outbox emptied", Scene.CHANGE, "gateway.ledger.accounts:AccountBook.done_bumps", At.AFTER),
    CrashPoint("admission to be journaled", Scene.OUTAGE, f"{_JOURNAL}.append", At.BEFORE, _journaled(Kind.ADMITTED)),
    CrashPoint("admission journaled", Scene.OUTAGE, f"{_JOURNAL}.append", At.AFTER, _journaled(Kind.ADMITTED)),
    CrashPoint("usage to be journaled", Scene.OUTAGE, f"{_JOURNAL}.append", At.BEFORE, _journaled(Kind.SETTLED)),
    CrashPoint("usage journaled", Scene.OUTAGE, f"{_JOURNAL}.append", At.AFTER, _journaled(Kind.SETTLED)),
    CrashPoint("replay due", Scene.RETURN, f"{_REPLAY}:JournalReplay._send", At.BEFORE, _given),
    CrashPoint("replay sent", Scene.RETURN, f"{_BATCH}._run", At.SENT, _of_script("replay")),
    CrashPoint("replay taken", Scene.RETURN, f"{_REPLAY}:JournalReplay._send", At.AFTER, _given),
    CrashPoint("journal replayed", Scene.HEIR, f"{_REPLAY}:_delete", At.BEFORE),
    CrashPoint("journal deleted", Scene.HEIR, f"{_REPLAY}:_delete", At.AFTER),
)
