"""`tollway` whose processes kill themselves at the steps of `crash_points.py`: run in place of `python -m gateway`.

A step is armed by an empty file of its name in the directory TOLLWAY_CRASH_FUSES: the process that comes there first
takes the file away and is gone by SIGKILL, in the middle of whatever it does. TOLLWAY_CRASH_STORE names the ledger's
store. The product has no part in it: its calls are wrapped from outside, before it starts.
"""

import asyncio
import functools
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.__main__ import main
from gateway.cli import supervisor
from tests.support.crash_points import POINTS, At, CrashPoint


def wrap(point: CrashPoint, fuses: Path, store: str) -> None:
    """Put the kill around the point's call."""
    module, _, path = point.call.format(store=store).partition(":")
    owner_name, _, name = path.rpartition(".")
    owner: Any = importlib.import_module(module)
    if owner_name:
        owner = getattr(owner, owner_name)
    setattr(owner, name, _wrapped(point, getattr(owner, name), functools.partial(_burn, fuses / point.name)))


def _burn(fuse: Path) -> None:
    try:
        fuse.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _burn_once_sent(burn: Callable[[], None]) -> None:
    """What is written in this turn of the loop leaves at its end, and may be written in the next."""
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, loop.call_soon, burn)


def _wrapped(point: CrashPoint, call: Callable[..., Any], burn: Callable[[], None]) -> Callable[..., Any]:
    def before(arguments: tuple[Any, ...]) -> None:
        if point.at is At.BEFORE and point.only(arguments, None):
            burn()

    def after(arguments: tuple[Any, ...], result: Any) -> None:
        if point.at is At.AFTER and point.only(arguments, result):
            burn()
        elif point.at is At.SENT and point.only(arguments, result):
            _burn_once_sent(burn)

    @functools.wraps(call)
    async def awaited(*arguments: Any, **options: Any) -> Any:
        before(arguments)
        result = await call(*arguments, **options)
        after(arguments, result)
        return result

    @functools.wraps(call)
    def called(*arguments: Any, **options: Any) -> Any:
        before(arguments)
        result = call(*arguments, **options)
        after(arguments, result)
        return result

    return awaited if inspect.iscoroutinefunction(call) else called


if __name__ == "__main__":
    for each in POINTS:
        wrap(each, Path(os.environ["TOLLWAY_CRASH_FUSES"]), os.environ["TOLLWAY_CRASH_STORE"])
    # A worker that is killed again and again is started ever later, which would be most of the test's time.
    vars(supervisor)["LONGEST_PAUSE_S"] = supervisor.FIRST_PAUSE_S
    sys.exit(main())
