"""The clients of the matrix: the official SDK where there is one that can be left at any moment, else a strict parser.

Each tells bit by bit what it hears, in words, and which finish reason it came to; whatever it can't make sense of, and
every error that it is told of, it raises.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import anthropic
import httpx
import openai
from google import genai
from google.genai import errors, types
from google.genai.models import AsyncModels

from tests.support.matrix.wire import WORD

FINISHED = {
    "end_turn": "stop",
    "completed": "stop",
    "STOP": "stop",
    "max_tokens": "length",
    "incomplete": "length",
    "MAX_TOKENS": "length",
    "tool_use": "calls",
    "tool_calls": "calls",
}
"""What the dialects call it."""


class ToldError(Exception):
    """The answer tells of an error."""


class HalfError(Exception):
    """The answer is half of one, and says nothing of why."""


OWN_ERRORS = (openai.APIError, anthropic.APIError, errors.APIError, httpx.HTTPError, ToldError)
"""What apps catch: a broken answer comes as one of these, never as a mistake of a parser's."""


class Bit(NamedTuple):
    """What one event told."""

    words: int = 0
    finish: str = ""


@dataclass(frozen=True, slots=True)
class Callers:
    """What the calls of one gateway share: connections, and all that an SDK builds at its start."""

    http: httpx.AsyncClient
    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic
    google: AsyncModels


@asynccontextmanager
async def callers(url: str) -> AsyncIterator[Callers]:
    """They speak to the gateway at `url`, and try once."""
    http = httpx.AsyncClient(timeout=60, trust_env=False, limits=httpx.Limits(max_connections=None))
    # On httpx: on aiohttp it warns of itself.
    options = types.HttpOptions(
        base_url=url,
        async_client_args={"transport": httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None))},
    )
    third = genai.Client(api_key="none", http_options=options)
    async with (
        http,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as first,
        anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as second,
        third.aio as google,
    ):
        yield Callers(http, first, second, google.models)
    third.close()


@dataclass(frozen=True, slots=True)
class Call:
    """One request of one cell. `step` is 2 where it brings what the called function gave back."""

    url: str
    key: str
    cell: str
    callers: Callers
    step: int = 1

    @property
    def headers(self) -> dict[str, str]:
        """Those that no SDK sends by itself."""
        return {"x-cell": self.cell}

    def openai(self) -> openai.AsyncOpenAI:
        """The SDK."""
        return self.callers.openai.copy(api_key=self.key, default_headers=self.headers)

    def anthropic(self) -> anthropic.AsyncAnthropic:
        """The SDK."""
        return self.callers.anthropic.copy(api_key=self.key, default_headers=self.headers)


@dataclass(frozen=True, slots=True)
class Client:
    """How one dialect is called."""

    whole: Callable[[Call], Awaitable[Bit]]
    stream: Callable[[Call], AsyncGenerator[Bit]]
    left: Callable[[Call], AsyncGenerator[Bit]] | None = None
    """In place of `stream` where the SDK's own stream can't be left."""


def bit(text: Any = "", finish: Any = "") -> Bit:
    """What a text and a finish reason come to."""
    said = str(finish or "")
    return Bit((text or "").count(WORD), FINISHED.get(said, said))
