"""The Lua files as files: short, told by their header, parsed, loaded; and what Python sends is what they take."""

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from luaparser import ast, astnodes

from gateway.domain.decisions import Counter, Extension
from gateway.quota.resp import RedisError, RedisLink, Word
from gateway.quota.scripts import load_script
from gateway.settings.data_files import data_file
from tests.support.limiters import ACCOUNT, Clock, RedisSubject, asked, hydrate, line, settled

FILES = sorted(data_file("lua", "").glob("*.lua"))
VERBS = {
    "reserve",
    "settle",
    "late",
    "correct",
    "extend",
    "renew",
    "reap",
    "hydrate",
    "peek",
    "bump",
    "forget",
    "replay",
}
VERBS |= {"forbidden", "survey"}

every_script = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def header(path: Path) -> str:
    """The comment a script begins with, without its dashes."""
    lines = path.read_text().splitlines()
    end = next(number for number, text in enumerate(lines) if not text.startswith("--"))
    return "\n".join(text.removeprefix("--") for text in lines[:end])


def test_every_verb_has_its_script() -> None:
    """The port's verbs that touch state are each one file, and no file is left over."""
    assert {path.stem for path in FILES} == VERBS


@every_script
def test_a_script_is_short(path: Path) -> None:
    """A script blocks the whole server while it runs, and has to be read in one go by whoever audits it."""
    assert len(path.read_text().splitlines()) <= 120


@every_script
def test_a_header_tells_the_contract(path: Path) -> None:
    """Whoever calls a script learns its keys, arguments, reply and invariants without reading its body."""
    text = header(path)
    assert text.startswith(f" {path.stem}: ")
    for part in (r"^ KEYS", r"^ ARGV", r"^ Reply: ", r"^ Invariants: "):
        assert re.search(part, text, re.MULTILINE), part


@every_script
def test_a_script_parses_and_declares_no_global(path: Path) -> None:
    """A global is refused by Redis only on the path that sets it: perhaps the one that runs in an emergency."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        assert not isinstance(node, astnodes.Function), f"{path.stem}: function {node.name.id} is global"
        if isinstance(node, astnodes.Assign) and not isinstance(node, astnodes.LocalAssign):
            for target in node.targets:
                assert not isinstance(target, astnodes.Name) or target.id in _locals(tree), target.id


@every_script
def test_a_script_uses_only_keys_it_was_given(path: Path) -> None:
    """On a Cluster a key that isn't in KEYS may live on another server: no script makes a key's name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, astnodes.Call) and ast.to_lua_source(node.func) == "redis.call" and len(node.args) > 1:
            assert not isinstance(node.args[1], astnodes.String | astnodes.Concat), ast.to_lua_source(node)


@every_script
async def test_a_script_loads_under_its_digest(path: Path, link: RedisLink) -> None:
    """The digest we ask for is the one the server works out: else every call would travel with its text."""
    script = load_script(path.stem)
    assert await link.call("SCRIPT", "LOAD", script.text) == script.sha.encode()


@every_script
async def test_a_script_without_arguments_harms_nothing(path: Path, link: RedisLink) -> None:
    """A malformed call holds nothing, whether or not it is an error."""
    script = load_script(path.stem)
    keys = (b"tw:{0}:a:x", b"tw:{0}:holds", b"tw:{0}:leases", b"tw:{0}:events")
    malformed: list[tuple[Word, ...]] = [(0,), (4, *keys, 0, b"\xc1"), (4, *keys, "x"), (4, *keys, 0, b"\x90", b"\x90")]
    for words in malformed:
        with suppress(RedisError):
            await link.evaluate(script.sha, script.text, words)
    assert await link.call("EXISTS", *keys[1:3]) == 0


@pytest.mark.parametrize("verb", ["reserve", "settle", "extend"])
def test_the_header_names_the_fields_python_packs(verb: str) -> None:
    """Order and number of fields are agreed in one place that both sides are held to."""
    listed = re.search(r"msgpack \[(.*?)\]", header(data_file("lua", f"{verb}.lua")), re.DOTALL)
    assert listed is not None
    single, _, per_line = listed[1].replace("\n", " ").partition("then per line:")
    names = [name.strip() for name in single.strip(" ,").split(",")]
    text = data_file("lua", f"{verb}.lua").read_text()
    locals_ = re.search(r"local ([A-Z_, ]+) = ([\d, ]+)\n", text)
    assert locals_ is not None
    constants = dict(zip(locals_[1].split(", "), map(int, locals_[2].split(", ")), strict=True))
    assert constants["FIRST"] == len(names) + 1
    assert constants["WIDTH"] == len(per_line.split(","))


async def test_what_python_sends_is_what_the_header_says(link: RedisLink) -> None:
    """The calls on the wire, field by field: a field moved on one side only would count the wrong thing."""
    subject = RedisSubject(link, Clock())
    sent = _Recorded(link)
    start_s = subject.clock.now_s
    await hydrate(subject, Counter("tokens/day", start_s, 3))
    request = asked("r1", line(start_s, 9, 2, name="tokens/day", length_s=86_400), version=7, concurrency=4)
    await subject.limiter.reserve(request)
    await subject.limiter.extend(Extension("r1", ACCOUNT, request.lines))
    await subject.limiter.settle(settled(request, 1, event=b"e"))
    hydrated, reserved, extension, settlement = sent.words
    keys = [f"tw:{{{_partition(reserved)}}}:{rest}".encode() for rest in (f"a:{ACCOUNT}", "holds", "leases", "events")]
    assert reserved[:5] == extension[:5] == settlement[:5] == (4, *keys)
    era = f"tw:{{{_partition(reserved)}}}:era".encode()
    assert hydrated[:6] == (5, *keys, era)
    expires_s = start_s + 40 * 86_400
    assert _unpack(hydrated[6]) == [ACCOUNT, 1, expires_s, "", "tokens/day", start_s, 3]
    assert reserved[5] == extension[5] == settlement[5] == subject.clock.now_us
    assert _unpack(reserved[6]) == [["r1", ACCOUNT, 7, 4, 60_000, "tokens/day", start_s, start_s + 86_400, 9, 2]]
    assert _unpack(extension[6]) == ["r1", "tokens/day", 9, 2]
    assert _unpack(settlement[6]) == ["r1", 0, "", "tokens/day", start_s, 1]
    assert settlement[7] == b"e"


async def test_each_reply_of_reserve_is_as_its_header_says(link: RedisLink) -> None:
    """All five answers of the script, raw, so that no path of it is left unrun."""
    subject = RedisSubject(link, Clock())
    sent = _Recorded(link)
    start_s, now_us = subject.clock.now_s, subject.clock.now_us

    async def reply(*requests: Any) -> Any:
        await asyncio.gather(*[subject.limiter.reserve(request) for request in requests])
        words = sent.words[-1]
        script = load_script("reserve")
        return await link.call("EVALSHA", script.sha, *words)

    fits = line(start_s, 9, 2)
    assert await reply(asked("r0", fits)) == [now_us, [3]]
    await hydrate(subject, version=2)
    assert await reply(asked("r1", fits, version=2)) == [now_us, [1, 1, 2]]
    assert await reply(asked("r2", line(start_s, 3, 2), version=2)) == [now_us, [0, 1, 2]]
    assert await reply(asked("r3", fits, version=1)) == [now_us, [2, 2]]
    past = line(start_s - 3600, 9)
    assert await reply(asked("r4", past, version=2), asked("r3", fits, version=1)) == [now_us, [4, 0], [2, 2]]


class _Recorded:
    """Keeps the words of each script run."""

    def __init__(self, link: RedisLink) -> None:
        self.words: list[tuple[Any, ...]] = []
        evaluate = link.evaluate

        def recording(sha: str, text: bytes, words: Any) -> "asyncio.Future[Any]":
            self.words.append(tuple(words))
            return evaluate(sha, text, words)

        link.evaluate = recording  # type: ignore[method-assign]  # the test listens in


def _unpack(packed: Any) -> Any:
    return msgspec.msgpack.decode(packed)


def _partition(words: tuple[Any, ...]) -> int:
    return int(words[1][4:5])


def _locals(tree: Any) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, astnodes.LocalAssign):
            names |= {target.id for target in node.targets}
    return names
