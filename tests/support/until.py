"""Waiting for something without guessing how long it takes."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 30) -> None:
    """Return once `condition` holds. Raises TimeoutError where it doesn't within `within_s`."""
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110  # what is watched lives in another process
            await asyncio.sleep(0.005)
