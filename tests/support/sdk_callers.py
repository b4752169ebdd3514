"""The official SDKs as callers of one kind: each asks one question, and tells what it raised in the same words.

Nothing waits: `Waits` stands in for every SDK's sleep, keeps for how long each would have slept, and moves the
limiter's clock on by as much, where it was given one.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anthropic
import anyio
import google.genai
import httpx
import openai
import pytest
from anthropic import AsyncAnthropic
from google.genai import types
from google.genai.models import AsyncModels
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from pydantic import SecretStr

from tests.support.shifted_clock import ShiftedClock

Ask = Callable[[bool], Awaitable[None]]
"""Asks once, streamed where True, and reads the answer to its end."""

MODEL = "m"


@dataclass(frozen=True, slots=True)
class Raised:
    """What an app can tell of an error: the SDK's own class for it, the status, and what the answer said.

    `status` is None where an error came inside a stream. `kind` is what the dialect calls the error, `code` its finer
    name; "" where the dialect has none.
    """

    error: str
    status: int | None
    kind: str
    code: str
    message: str
    request_id: str


@dataclass(slots=True)
class Waits:
    """The waits asked for, in seconds."""

    clock: ShiftedClock | None = None
    asked_s: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        """In place of a sleep."""
        self.asked_s.append(seconds)
        if self.clock is not None:
            self.clock.move(seconds)


def waits_of_sdks(monkeypatch: pytest.MonkeyPatch, clock: ShiftedClock | None = None) -> Waits:
    """From now on in this test no SDK sleeps."""
    waits = Waits(clock)
    monkeypatch.setattr(anyio, "sleep", waits)
    return waits


@contextlib.asynccontextmanager
async def openai_caller(url: str, key: str, waits: Waits) -> AsyncIterator[Ask]:
    """The `openai` package."""
    del waits
    async with AsyncOpenAI(base_url=url + "/v1", api_key=key) as sdk:

        async def ask(streamed: bool) -> None:
            ask_for: Any = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": streamed}
            answer = await sdk.chat.completions.create(**ask_for)
            if streamed:
                assert [chunk async for chunk in answer]

        yield ask


@contextlib.asynccontextmanager
async def responses_caller(url: str, key: str, waits: Waits) -> AsyncIterator[Ask]:
    """The `openai` package, by its newer API."""
    del waits
    async with AsyncOpenAI(base_url=url + "/v1", api_key=key) as sdk:

        async def ask(streamed: bool) -> None:
            answer: Any = await sdk.responses.create(model=MODEL, input="hi", stream=streamed)
            if streamed:
                assert [event async for event in answer]

        yield ask


@contextlib.asynccontextmanager
async def langchain_caller(url: str, key: str, waits: Waits) -> AsyncIterator[Ask]:
    """The `langchain-openai` package."""
    del waits
    async with DefaultAsyncHttpxClient() as client:
        chat = ChatOpenAI(model=MODEL, base_url=url + "/v1", api_key=SecretStr(key), http_async_client=client)

        async def ask(streamed: bool) -> None:
            if streamed:
                assert [chunk async for chunk in chat.astream("hi")]
            else:
                await chat.ainvoke("hi")

        yield ask


@contextlib.asynccontextmanager
async def anthropic_caller(url: str, key: str, waits: Waits) -> AsyncIterator[Ask]:
    """The `anthropic` package."""
    del waits
    async with AsyncAnthropic(base_url=url, api_key=key) as sdk:

        async def ask(streamed: bool) -> None:
            ask_for: Any = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
            answer: Any = await sdk.messages.create(**ask_for, stream=streamed)
            if streamed:
                assert [event async for event in answer]

        yield ask


@contextlib.asynccontextmanager
async def gemini_caller(url: str, key: str, waits: Waits) -> AsyncIterator[Ask]:
    """The `google-genai` package as it comes: it asks once."""
    del waits
    async with gemini_models(url, key) as sdk:
        yield _gemini(sdk)


@contextlib.asynccontextmanager
async def retrying_gemini_caller(url: str, key: str, waits: Waits) -> AsyncIterator[Ask]:
    """The `google-genai` package, told to ask three times in all."""
    options = types.HttpRetryOptions(attempts=3)
    async with gemini_models(url, key, options) as sdk:
        api: Any = sdk._api_client
        api._async_retry.sleep = waits
        yield _gemini(sdk)


def _gemini(sdk: AsyncModels) -> Ask:
    async def ask(streamed: bool) -> None:
        if streamed:
            assert [chunk async for chunk in await sdk.generate_content_stream(model=MODEL, contents="hi")]
        else:
            await sdk.generate_content(model=MODEL, contents="hi")

    return ask


@contextlib.asynccontextmanager
async def gemini_models(url: str, key: str, retry: types.HttpRetryOptions | None = None) -> AsyncIterator[AsyncModels]:
    """Google's SDK, on httpx: on aiohttp it warns of itself."""
    transport = {"transport": httpx.AsyncHTTPTransport()}
    options = types.HttpOptions(base_url=url, async_client_args=transport, retry_options=retry)
    client = google.genai.Client(api_key=key, http_options=options)
    async with client.aio as sdk:
        yield sdk.models
    client.close()


@dataclass(frozen=True, slots=True)
class Sdk:
    """One SDK, or one way to use it. `column` is its place in the table of docs/faults.md."""

    caller: Callable[[str, str, Waits], contextlib.AbstractAsyncContextManager[Ask]]
    dialect: str
    column: str
    attempts: int
    """How often it asks in all, where it retries."""


SDKS = {
    "openai": Sdk(openai_caller, "openai", "openai", 3),
    "openai-responses": Sdk(responses_caller, "openai-responses", "openai", 3),
    "langchain-openai": Sdk(langchain_caller, "openai", "openai", 3),
    "anthropic": Sdk(anthropic_caller, "anthropic", "anthropic", 3),
    "google-genai": Sdk(gemini_caller, "gemini", "google-genai", 1),
    "google-genai-retrying": Sdk(retrying_gemini_caller, "gemini", "google-genai", 3),
}


async def raised_by(ask: Ask, *, streamed: bool = False) -> Raised | None:
    """Ask; what was raised, None where nothing was."""
    try:
        await ask(streamed)
    except (openai.APIError, anthropic.APIError, google.genai.errors.APIError) as error:
        return _raised(error)
    return None


def _raised(error: Any) -> Raised:
    # LangChain raises subclasses of the SDK's own errors; what apps catch are those.
    packages = ("openai", "anthropic", "google")
    own = next(one.__name__ for one in type(error).__mro__ if one.__module__.partition(".")[0] in packages)
    if isinstance(error, google.genai.errors.APIError):
        details: Any = error.details or {}
        told = {one["@type"].rpartition(".")[2]: one for one in details.get("error", {}).get("details", [])}
        code = told.get("ErrorInfo", {}).get("reason", "").lower()
        request_id = told.get("RequestInfo", {}).get("requestId", "")
        return Raised(own, error.code, error.status or "", code, error.message or "", request_id)
    status, request_id = getattr(error, "status_code", None), getattr(error, "request_id", None) or ""
    body: Any = error.body if isinstance(error.body, dict) else {}
    if isinstance(error, anthropic.APIError):
        inner = body.get("error", {})
        return Raised(own, status, inner.get("type", ""), "", inner.get("message", ""), request_id)
    return Raised(own, status, error.type or "", error.code or "", body.get("message", ""), request_id)
