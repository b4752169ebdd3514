"""The public keys of issuers of tokens (JWKS, RFC 7517): fetched in the background, kept, and served while they hold.

Promises: a request waits for a key set only before the first one came, or for the one look that an unknown key is
worth, at most every `LOOK_AGAIN_S`; what was fetched serves on while the issuer is away, for `stale_s` at most; a
document that can't be read never replaces one that could. Fails with Fault(ISSUER_UNAVAILABLE).
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec

from gateway.domain.faults import ISSUER_UNAVAILABLE, Fault
from gateway.telemetry.log import log

LOOK_AGAIN_S = 10.0
FIRST_WAIT_S = 3.0
FETCH_S = 5.0
_MOST_BYTES = 1024 * 1024
_RETRY_S = 5.0

Key = dict[str, Any]
"""A JSON Web Key as the issuer wrote it."""


class _Document(msgspec.Struct):
    keys: list[Key]


class KeySet:
    """One issuer's keys, from `source`: an http(s) address, or a file. `clock` is monotonic seconds."""

    def __init__(
        self, source: str, *, cache_s: float, stale_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.source = source
        self.generation = 0
        """Grows with every key set that differs from the one before."""
        self._cache_s = cache_s
        self._stale_s = stale_s
        self._clock = clock
        self._keys: list[Key] = []
        self._fetched_s: float | None = None
        self._looked_s = float("-inf")
        self._failing = False
        self._fetching: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Keep the keys fresh, for as long as the gateway runs."""
        while True:
            await self._fetch_shared()
            await asyncio.sleep(min(_RETRY_S, self._cache_s) if self._failing else self._cache_s)

    async def keys(self) -> list[Key]:
        """All keys. Raises Fault(ISSUER_UNAVAILABLE) where there are none, or only some too old to go by."""
        if self._fetched_s is None:
            await self._look(FIRST_WAIT_S)
        if self._fetched_s is None or self._clock() - self._fetched_s > self._cache_s + self._stale_s:
            raise Fault(ISSUER_UNAVAILABLE, f"no key set that can be gone by from {self.source}")
        return self._keys

    async def look_again(self) -> bool:
        """Fetch for the sake of a key that is not among them; False where that was done a moment ago."""
        if self._fetching is None and self._clock() - self._looked_s < LOOK_AGAIN_S:
            return False
        await self._look(FETCH_S)
        return True

    async def _look(self, patience_s: float) -> None:
        """Wait for a fetch, begun if none is under way and the last one is some time ago."""
        if self._fetching is None and self._clock() - self._looked_s < min(_RETRY_S, LOOK_AGAIN_S):
            return
        await asyncio.wait([self._begin()], timeout=patience_s)

    async def _fetch_shared(self) -> None:
        await asyncio.shield(self._begin())

    def _begin(self) -> "asyncio.Task[None]":
        if self._fetching is None:
            self._looked_s = self._clock()
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            keys = msgspec.json.decode(await self._read(), type=_Document).keys
        except (httpx.HTTPError, OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._fail(f"{type(error).__name__}: {error}")
        else:
            self.generation += keys != self._keys
            self._keys, self._fetched_s = keys, self._clock()
            if self._failing:
                log.warning("issuer_answers_again", source=self.source)
            self._failing = False
        finally:
            self._fetching = None

    def _fail(self, detail: str) -> None:
        if not self._failing:
            log.warning("issuer_unreachable", source=self.source, detail=detail)
        self._failing = True

    async def _read(self) -> bytes:
        if "://" not in self.source:
            return await asyncio.to_thread(_read_file, Path(self.source))
        async with (
            asyncio.timeout(FETCH_S),
            httpx.AsyncClient(timeout=FETCH_S, trust_env=False) as client,
            client.stream("GET", self.source, headers={"accept": "application/json"}) as answer,
        ):
            if answer.status_code != 200:
                raise ValueError(f"it answered {answer.status_code}")
            body = b""
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise ValueError("it sent more than 1 MiB")
            return body


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES)
