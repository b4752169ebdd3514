"""The link to a Redis Cluster: one `RedisLink` for each primary, each call sent to the primary of its key.

Promises: a call that the Cluster redirects (MOVED, ASK) or puts off (TRYAGAIN) is sent on until a time-out of its own
has passed, as it has not run; no other call is sent twice. Who serves what is learned anew when a redirection or a lost
connection shows that it changed, a few times a second at most. A shard that is away fails its own calls alone, with
Fault(LIMITER_UNAVAILABLE); CLUSTERDOWN and LOADING are a RedisError on the one call, as every error reply is.
"""

import asyncio
import random
from binascii import crc_hqx
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault
from gateway.quota.redis_address import ClusterPlace, RedisAddress
from gateway.quota.resp import RedisError, RedisLink, Word, failed, set_fault

SLOTS = 16384

LOOK_GAP_S = 0.1
"""Least time between two looks at who serves what."""

HEALTHY_LOOK_S, BROKEN_LOOK_S = 60.0, 0.3
"""How long nothing is looked at while all primaries are connected, and while one is not."""

PROMPT_HOPS, HOP_PAUSE_S = 3, 0.02

REDIRECTIONS = frozenset({"MOVED", "ASK", "TRYAGAIN"})

Spot = tuple[str, int]
"""Host and port of a node, as the Cluster tells them."""


class ClusterLink:
    """A Cluster seen from one loop. `timeout_s`, `client_name` and `at_connect` as for each primary's `RedisLink`."""

    apart = True

    def __init__(
        self,
        place: ClusterPlace,
        *,
        timeout_s: float = 1.0,
        client_name: str = "tollway",
        at_connect: Sequence[tuple[Word, ...]] = (),
    ) -> None:
        self._seeds = place.seeds
        self._timeout_s = timeout_s
        self._link_to = partial(RedisLink, timeout_s=timeout_s, client_name=client_name, at_connect=at_connect)
        self._primaries: dict[Spot, RedisLink] = {}
        self._members: set[Spot] = set()
        self._slots: list[RedisLink | None] = [None] * SLOTS
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._trouble = "the link was not opened"
        self._past_timeouts = 0

    @property
    def connected(self) -> bool:
        """Whether every slot has a primary, and a call to each would be sent now."""
        return None not in self._slots and all(link.connected for link in self._primaries.values())

    @property
    def timeouts(self) -> int:
        """Calls that were not answered in time."""
        return self._past_timeouts + sum(link.timeouts for link in self._primaries.values())

    async def open(self) -> None:
        """Learn the Cluster from its seeds. Raises Fault(LIMITER_UNAVAILABLE) where none tells it; goes on trying."""
        if self._opened is None:
            self._opened = asyncio.get_running_loop().create_future()
            self._keeper = asyncio.create_task(self._keep(self._opened), name="redis cluster")
        await asyncio.shield(self._opened)

    def call(self, *words: Word) -> "asyncio.Future[Any]":
        """Send one command to the primary of its key; one without a key to every primary, for a list of replies."""
        key = _key_of(words)
        if key is not None:
            return self._send(_Call(slot_of(key), words))
        if not self._primaries or None in self._slots:
            return failed(self._trouble)
        return asyncio.gather(*[link.call(*words) for link in self._primaries.values()])

    def evaluate(self, sha: str, text: bytes, words: Sequence[Word]) -> "asyncio.Future[Any]":
        """Run a script on the primary of its first key; all its keys have to share a hash tag."""
        return self._send(_Call(slot_of(words[1]), tuple(words), sha, text))

    async def close(self) -> None:
        """Send what is queued, fail what is pending, and stay closed. May be called again."""
        self._trouble = "the link is closed"
        tasks = [task for task in (self._keeper, *self._errands) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*[link.close() for link in self._primaries.values()])
        self._slots = [None] * SLOTS
        if self._opened is not None and not self._opened.done():
            set_fault(self._opened, self._trouble)

    def _send(self, call: "_Call") -> "asyncio.Future[Any]":
        link = self._slots[call.slot]
        if link is None:
            self._changed.set()
            return failed(self._trouble)
        answer = asyncio.get_running_loop().create_future()
        call.send(link).add_done_callback(partial(self._answered, call, answer))
        return answer

    def _answered(self, call: "_Call", answer: "asyncio.Future[Any]", reply: "asyncio.Future[Any]") -> None:
        error = reply.exception()
        if answer.done():
            return
        if error is None:
            answer.set_result(reply.result())
        elif isinstance(error, RedisError) and error.code in REDIRECTIONS:
            self._start(self._redirect(call, answer, error))
        else:
            # Even a node that answered CLUSTERDOWN may know more by now.
            self._changed.set()
            answer.set_exception(error)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        errand = asyncio.create_task(work)
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)

    async def _redirect(self, call: "_Call", answer: "asyncio.Future[Any]", error: RedisError) -> None:
        """Send a call on until it is answered: a slot that moves answers TRYAGAIN until its keys are together again."""
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._follow(call, error)
        except TimeoutError:
            set_fault(answer, f"the Cluster did not come to rest within {self._timeout_s:g} s: {error}")
        except (Fault, RedisError) as final:
            self._changed.set()
            if not answer.done():
                answer.set_exception(final)
        except asyncio.CancelledError:
            set_fault(answer, self._trouble)
            raise
        else:
            if not answer.done():
                answer.set_result(reply)

    async def _follow(self, call: "_Call", error: RedisError) -> Any:
        hops = 0
        while True:
            hops += 1
            if hops > PROMPT_HOPS or error.code == "TRYAGAIN":
                await asyncio.sleep(HOP_PAUSE_S)
            try:
                link = await self._link_by(call.slot, error)
                return await (call.send_asking(link) if error.code == "ASK" else call.send(link))
            except RedisError as again:
                if again.code not in REDIRECTIONS:
                    raise
                error = again

    async def _link_by(self, slot: int, error: RedisError) -> RedisLink:
        """To whom the error sends a call for the slot. Raises Fault where that is nobody."""
        host, _, port = error.text.split(" ")[2].rpartition(":")
        if error.code != "TRYAGAIN" and host:
            link = await self._connected_to((host, int(port)))
            if error.code == "MOVED":
                self._slots[slot] = link
                self._changed.set()
            return link
        known = self._slots[slot]
        if known is None:
            raise Fault(LIMITER_UNAVAILABLE, self._trouble)
        return known

    async def _connected_to(self, spot: Spot) -> RedisLink:
        link = self._primaries.get(spot)
        if link is None:
            link = self._primaries[spot] = self._link_to(self._address(spot))
        if not link.connected:
            with suppress(Fault):
                await link.open()
        return link

    async def _keep(self, opened: "asyncio.Future[None]") -> None:
        """Look at who serves what whenever it may have changed, until cancelled."""
        while True:
            self._changed.clear()
            try:
                await self._look()
            except Fault as fault:
                self._trouble = fault.internal
                if not opened.done():
                    set_fault(opened, self._trouble)
            else:
                if not opened.done():
                    opened.set_result(None)
            await asyncio.sleep(LOOK_GAP_S * random.uniform(1, 2))  # noqa: S311  # jitter is no secret
            with suppress(TimeoutError):
                async with asyncio.timeout(HEALTHY_LOOK_S if self.connected else BROKEN_LOOK_S):
                    await self._changed.wait()

    async def _look(self) -> None:
        """Ask one node after the other, those that are connected first, until one tells who serves what."""
        links = list(self._primaries.items())
        random.shuffle(links)
        said: list[str] = []
        for spot, link in links:
            if link.connected and await self._asked(spot, link, said):
                return
        seeds = [(seed.host, seed.port) for seed in self._seeds]
        for spot in [*seeds, *(self._members - set(seeds))]:
            link = RedisLink(self._address(spot), timeout_s=self._timeout_s)
            try:
                await link.open()
                if await self._asked(spot, link, said):
                    return
            except Fault as fault:
                said.append(fault.internal)
            finally:
                await link.close()
        raise Fault(LIMITER_UNAVAILABLE, f"no node of the Redis Cluster answers: {'; '.join(said)}")

    async def _asked(self, spot: Spot, link: RedisLink, said: list[str]) -> bool:
        try:
            ranges = await link.call("CLUSTER", "SLOTS")
        except (Fault, RedisError) as error:
            said.append(f"{spot[0]}:{spot[1]}: {error.internal if isinstance(error, Fault) else error}")
            return False
        if not ranges:
            said.append(f"{spot[0]}:{spot[1]} knows no slots")
            return False
        await self._take(spot, ranges)
        return True

    async def _take(self, asked: Spot, ranges: list[Any]) -> None:
        """Point every slot to its primary, as told by the node at `asked`, and let former primaries go."""
        told = [(first, last, [_spot(node, asked) for node in nodes]) for first, last, *nodes in ranges]
        self._members = {spot for _, _, spots in told for spot in spots}
        await asyncio.gather(*[self._connected_to(spots[0]) for _, _, spots in told])
        slots: list[RedisLink | None] = [None] * SLOTS
        for first, last, spots in told:
            slots[first : last + 1] = [self._primaries[spots[0]]] * (last + 1 - first)
        self._slots = slots
        self._trouble = "no node of the Redis Cluster serves the key's slot"
        for spot in set(self._primaries) - {spots[0] for _, _, spots in told}:
            self._start(self._retire(self._primaries.pop(spot)))

    async def _retire(self, link: RedisLink) -> None:
        """Close a link once what was sent over it is answered."""
        with suppress(Fault, RedisError):
            await link.call("PING")
        await link.close()
        self._past_timeouts += link.timeouts

    def _address(self, spot: Spot) -> RedisAddress:
        host, port = spot
        return replace(self._seeds[0], host=host, port=port)


class _Call(msgspec.Struct):
    """One call: a command's words, or a script and the words that follow its digest."""

    slot: int
    words: tuple[Word, ...]
    sha: str = ""
    text: bytes = b""

    def send(self, link: RedisLink) -> "asyncio.Future[Any]":
        """Send it as it is."""
        return link.evaluate(self.sha, self.text, self.words) if self.sha else link.call(*self.words)

    def send_asking(self, link: RedisLink) -> "asyncio.Future[Any]":
        """Send it to a node that only imports the slot. ASKING holds for one command, so a script goes by its text."""
        link.call("ASKING").add_done_callback(lambda reply: reply.exception())
        return link.call("EVAL", self.text, *self.words) if self.sha else link.call(*self.words)


def slot_of(key: Word) -> int:
    """The slot of a key, by its hash tag (Redis Cluster specification, "Hash tags")."""
    name = key if isinstance(key, bytes) else str(key).encode()
    first = name.find(b"{") + 1
    last = name.find(b"}", first) if first else -1
    return crc_hqx(name[first:last] if last > first else name, 0) % SLOTS


def _key_of(words: tuple[Word, ...]) -> Word | None:
    """The key by which a command is routed, of those commands that the gateway calls."""
    if words[0] == "XREADGROUP":
        return words[words.index("STREAMS") + 1]
    if words[0] == "XGROUP":
        return words[2]
    return words[1] if len(words) > 1 else None


def _spot(node: list[Any], asked: Spot) -> Spot:
    """A node's host and port; one that doesn't tell its host has that of who was asked."""
    host = node[0].decode() if node[0] else ""
    return (asked[0] if host in {"", "?"} else host), node[1]
