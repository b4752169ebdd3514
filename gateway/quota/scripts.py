"""The Lua scripts, one verb per file under lua/, and how one is run.

A script is run by its digest and, where the server doesn't know it (new, restarted, flushed), by its text: that works
where SCRIPT LOAD is forbidden, and costs no round trip in the common case. Fails as RedisLink.call does.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from gateway.quota.redis_links import Link
from gateway.quota.resp import RedisError, Word
from gateway.settings.data_files import data_file

SHEBANG = b"#!lua\n"
"""Makes Redis 7 and Valkey refuse the whole script where it could not write (READONLY, OOM, MISCONF, NOREPLICAS), in
place of failing in the middle, and hold it to the keys that it was given."""


class Script(msgspec.Struct, frozen=True):
    """One verb: its name, its Lua text, and the SHA-1 by which Redis knows it."""

    name: str
    text: bytes
    sha: str


@cache
def load_script(verb: str) -> Script:
    """The script of a verb, from lua/<verb>.lua; read once per process."""
    text = SHEBANG + data_file("lua", f"{verb}.lua").read_bytes()
    return Script(verb, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


def run(link: Link, script: Script, keys: Sequence[Word], args: Sequence[Word]) -> "asyncio.Future[Any]":
    """Run a script in one round trip; the future holds its reply."""
    return link.evaluate(script.sha, script.text, (len(keys), *keys, *args))


def preloading() -> tuple[tuple[Word, ...], ...]:
    """Calls that make the server know the scripts that reserve and settle, for `RedisLink(at_connect=...)`.

    A script sent by its text takes one round trip more, in which a later call to another script would overtake it, and
    after which a killed worker's is gone.
    """
    verbs = "reserve", "settle", "late", "correct", "replay"
    return tuple(("SCRIPT", "LOAD", load_script(verb).text) for verb in verbs)


async def forbidden(link: Link, namespace: str) -> str:
    """Which permissions the user that the gateway logs in as lacks, as a text; "" where it lacks none.

    Raises Fault where Redis is away. A server that can't tell is taken to forbid nothing.
    """
    script = load_script("forbidden")
    try:
        lacking = await run(link, script, (f"{namespace}:{{0}}:holds",), ())
    except RedisError as error:
        return error.text if error.code == "NOPERM" else ""
    return f"the Redis user may not run {b', '.join(lacking).decode()}" if lacking else ""
