"""One gateway, warm and counted, between clients and an upstream that a scenario plays in lockstep."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from tests.support.budgets import CountingLoop, Meter, count_seams
from tests.support.budgets_drive import Drive, is_whole, turn_until, wait_until_arrived
from tests.support.openai_wire import completion, http
from tests.support.stand import CHAT, SETTINGS, Stand, stand
from tests.support.valkey import ValkeyServer

WIDE = 32
"""Clients that a course connects."""

TIERS = "\n  free: {limits: {requests: {hour: 9000}, tokens: {day: 90000000, month: 90000000}}, concurrency: 900}\n"
TIERS += "  spent: {limits: {requests: {month: 1}}}\n"
REPLY = http(completion())

Scenario = Callable[["Course"], Awaitable[None]]
Run = Callable[[Scenario], None]


class Course:
    """What a scenario drives. `key` is that of an account whose tier refuses nothing."""

    def __init__(self, meter: Meter, drive: Drive, here: Stand, key: str) -> None:
        self.meter, self.drive, self.here, self.key = meter, drive, here, key

    def request(self, *, key: str = "", path: str = CHAT, **fields: object) -> bytes:
        """The bytes of a chat request; `fields` are added to its body."""
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, **fields}
        # As the SDKs render it: OpenAI's own is compact.
        text = json.dumps(body, separators=(",", ":")).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key or self.key}\r\n"
        return f"{head}content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text

    async def serve(self, request: bytes, count: int = 1) -> None:
        """As many requests at once, each taken, answered and settled in one turn with the others."""
        drive = self.drive
        drive.ask(request, count)
        self.wait_for("client", count)
        await drive.asked(count)
        await self.finish(count)

    async def finish(self, count: int = 1) -> None:
        """Answer what the upstream was asked, all of it in one turn."""
        self.drive.reply(REPLY)
        self.wait_for("upstream", count)
        await self.drive.answers(is_whole, count)
        await self.settled()

    def wait_for(self, peer: str, count: int) -> None:
        """Let the kernel bring what the gateway is to read from as many peers, before the loop turns."""
        sockets = self.meter.sockets[peer]
        if len(sockets) >= count > 1:
            wait_until_arrived(sockets, count)

    async def settled(self) -> None:
        """Wait until the limiter has confirmed every settlement."""
        await turn_until(lambda: self.here.gateway._limiter.unsettled == 0)


def run_course(
    directory: Path, valkey: ValkeyServer, patch: pytest.MonkeyPatch, scenario: Scenario, settings: str = SETTINGS
) -> None:
    """Run the scenario on a gateway that has served `WIDE` requests at once: keys known, connections open."""

    async def run() -> None:
        meter = cast("CountingLoop", asyncio.get_running_loop()).meter
        count_seams(patch, meter)
        with Drive() as drive:
            async with stand(directory, valkey, drive.port, tiers=TIERS, settings=settings) as here:
                course = Course(meter, drive, here, await here.account())
                drive.connect(here.port, WIDE)
                for _ in range(2):
                    await course.serve(course.request(), WIDE)
                await scenario(course)

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(run())
