"""An app that meters its own requests: one call a verb, against a whole gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.domain.metered import scoped
from tests.support.stand import Stand, stand
from tests.support.valkey import ValkeyServer

NOBODY = 9
"""A port that nothing listens on: such an app's requests never pass the gateway."""

TIERS = """
  free:
    limits: {requests: {day: 1000}, tokens: {day: 1000, month: 100000}}
    concurrency: 100
    numbers: {max_banks: 3, max_storage_gb: 5}
  wide: {limits: {requests: {day: 100000}, tokens: {day: 1000000}}}
  narrow: {limits: {tokens: {day: 1000}}, concurrency: 2}
"""


class App:
    """An app with a key of an account."""

    def __init__(self, here: Stand, key: str, account_id: str = "acme") -> None:
        self.here = here
        self.key = key
        self.account_id = account_id

    @property
    def headers(self) -> dict[str, str]:
        """The header that carries its key."""
        return {"authorization": f"Bearer {self.key}"}

    async def post(self, verb: str, **body: Any) -> httpx.Response:
        """One call."""
        return await self.here.client.post(f"/_tollway/{verb}", json=body, headers=self.headers)

    async def reserve(self, request_id: str = "", input_tokens: int = 10, output_tokens: int = 90, **more: Any) -> Any:
        """Reserve; the answer as it came."""
        named = {"request_id": request_id} if request_id else {}
        estimate = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        return await self.post("reserve", estimate=estimate, **named, **more)

    async def settle(self, request_id: str, input_tokens: int = 10, output_tokens: int = 20, **more: Any) -> Any:
        """Settle; the answer as it came."""
        usage = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        return await self.post("settle", request_id=request_id, usage=usage, **more)

    async def used(self, limit: str = "tokens/day") -> int:
        """What is used of a limit, by the limiter."""
        live = await self.here.gateway._limiter.peek(self.account_id)
        assert live is not None
        return live[2][limit][1]

    async def running(self) -> int:
        """How many requests of the account are under way, by the limiter."""
        live = await self.here.gateway._limiter.peek(self.account_id)
        assert live is not None
        return live[1]

    def wire_id(self, request_id: str) -> str:
        """The id under which the ledger has a request."""
        return scoped(self.account_id, request_id)


@asynccontextmanager
async def app_beside(directory: Path, valkey: ValkeyServer, tier: str = "free", **options: Any) -> AsyncIterator[App]:
    """A gateway, an account on `tier`, and its app."""
    async with stand(directory, valkey, NOBODY, tiers=TIERS, **options) as here:
        yield App(here, await here.account("acme", tier))
