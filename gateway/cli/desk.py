"""The desk of `gateway/console/admin_desk.py`, as the commands on accounts and plans use it."""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway.cli.bad_input import BadInput
from gateway.cli.connections import Connections, connected
from gateway.console.admin_bodies import in_words
from gateway.console.admin_desk import Desk
from gateway.domain.faults import LIMITER_UNAVAILABLE, Fault

_Kind = TypeVar("_Kind")


@asynccontextmanager
async def at_desk(file: Path) -> AsyncIterator[Desk]:
    """A desk as the settings in `file` say, the ledger migrated. Raises BadInput and Fault."""
    async with connected(file) as connections:
        yield desk_of(connections)


def work_at_desk(args: argparse.Namespace, work: Callable[[Desk, argparse.Namespace], Awaitable[int | None]]) -> int:
    """Do a command's work as its arguments say; the exit status, 0 unless `work` tells another."""

    async def done() -> int:
        async with at_desk(args.file) as desk:
            return await work(desk, args) or 0

    return asyncio.run(done())


def desk_of(connections: Connections) -> Desk:
    """A desk over open connections; Redis is spoken to where it is needed."""

    async def peek(account_id: str) -> tuple[int, int, Mapping[str, tuple[int, int]]] | None:
        async with connections.live() as live:
            if live is None:
                raise Fault(LIMITER_UNAVAILABLE)
            return await live.limiter.peek(account_id)

    return Desk(
        ledger=connections.ledger,
        settings=lambda: connections.settings,
        now_ms=lambda: time.time_ns() // 1_000_000,
        peek=peek,
        digest_key=connections.deployment.digest_key,
        metrics_dir=connections.deployment.metrics_dir,
        tell_gateways=connections.tell_gateways,
    )


def typed(kind: type[_Kind], **fields: Any) -> _Kind:
    """What was typed at the command line as a body of the admin API; None stands for an option left out.

    Raises BadInput.
    """
    try:
        given = {name: value for name, value in fields.items() if value is not None}
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadInput(in_words(error)) from error


def as_json(told: object) -> str:
    """An answer of the admin API, as `--json` prints it."""
    return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()
