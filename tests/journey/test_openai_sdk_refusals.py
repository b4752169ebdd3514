"""The official OpenAI SDK where it is refused: typed errors, and retries that come when they help and not else."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
import openai
import pytest
import yaml
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.chat.chat_completion_message_param import ChatCompletionMessageParam

from gateway.settings.data_files import data_file
from tests.support.ledgers import an_event
from tests.support.own_usage import limit_of
from tests.support.sdk_upstream import said, sdk_upstream
from tests.support.shifted_clock import shifted_clock
from tests.support.stand import now_ms, stand
from tests.support.until import until
from tests.support.valkey import ValkeyServer

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
LEFT_S = 5
TICK_S = 0.01
"""By what a timer may be early, or two clocks apart."""

FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ncontent-length: 31\r\n\r\n"
FAILED += b'{"error": {"message": "oh no"}}'


@dataclass(slots=True)
class Overheard:
    """What an SDK sends and gets: when, and with which status and fields. It changes nothing."""

    sent_s: list[float] = field(default_factory=list)
    answers: list[tuple[float, int, httpx2.Headers]] = field(default_factory=list)

    def client(self) -> DefaultAsyncHttpxClient:
        """The SDK's own HTTP client, with an ear."""

        async def sent(_: httpx2.Request) -> None:
            self.sent_s.append(time.monotonic())

        async def answered(answer: httpx2.Response) -> None:
            self.answers.append((time.monotonic(), answer.status_code, answer.headers))

        return DefaultAsyncHttpxClient(event_hooks={"request": [sent], "response": [answered]})

    @property
    def statuses(self) -> list[int]:
        """Of every answer, in order."""
        return [status for _, status, _ in self.answers]

    def refused(self) -> tuple[float, float, int, float]:
        """The first refusal: when it was asked for and heard, what it asked to wait, and what the SDK waited then."""
        place = self.statuses.index(429)
        heard_s, _, headers = self.answers[place]
        return self.sent_s[place], heard_s, int(headers["retry-after"]), self.sent_s[place + 1] - heard_s


@pytest.mark.parametrize("key", ["sk-not-ours", "tw_nope", "tw_aaaaaaaaaaaa_" + "b" * 40])
async def test_a_bad_key_is_an_authentication_error(tmp_path: Path, valkey: ValkeyServer, key: str) -> None:
    """F4: the SDK raises what apps catch for it, tries once, and the upstream hears nothing."""
    async with sdk_upstream() as upstream, stand(tmp_path, valkey, upstream.port) as here:
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key) as sdk:
            with pytest.raises(openai.AuthenticationError) as raised:
                await sdk.chat.completions.create(model="m", messages=HELLO)

        assert raised.value.code == "invalid_api_key"
        assert raised.value.type == "authentication_error"
        assert raised.value.request_id
        assert upstream.asked == []


async def test_a_refusal_is_a_rate_limit_error_that_says_what_and_when(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B1, D5: without retries the app gets the limit's name, its size and the second at which it may come again, in
    the error and in its headers; the upstream hears nothing of it.
    """  # noqa: D205
    tiers = "  free: {limits: {requests: {hour: 1}, tokens: {day: 1000}}}"
    async with sdk_upstream() as upstream, stand(tmp_path, valkey, upstream.port, tiers=tiers) as here:
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=await here.account(), max_retries=0) as sdk:
            await sdk.chat.completions.create(model="m", messages=HELLO)
            with pytest.raises(openai.RateLimitError, match="Limit of 1 requests per hour: 0 left") as raised:
                await sdk.chat.completions.create(model="m", messages=HELLO)
        headers = raised.value.response.headers
        body: Any = raised.value.body

        assert (raised.value.code, raised.value.type) == ("rate_limit_exceeded", "requests")
        assert set(body) == {"message", "type", "param", "code"}
        assert 0 < int(headers["retry-after"]) <= 3600
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert headers["x-ratelimit-reset-requests"] == headers["retry-after"] + "s"
        assert headers["x-ratelimit-remaining-tokens"] == str(1000 - 13)
        assert len(upstream.asked) == 1


async def test_a_full_window_is_retried_after_exactly_its_end(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B1, D1: seconds before the minute ends the account is full; the SDK is told the first second that has room, waits
    for it, not less and not for its own backoff, and its one retry succeeds. The app notices nothing but the wait.
    """  # noqa: D205
    clock = shifted_clock(monkeypatch)
    overheard = Overheard()
    tiers = "  free: {limits: {requests: {minute: 1}}}"
    async with sdk_upstream() as upstream, stand(tmp_path, valkey, upstream.port, tiers=tiers) as here:
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key, http_client=overheard.client()) as sdk:
            before_s = time.monotonic()
            clock.put(window_s=60, left_s=LEFT_S)
            after_s = time.monotonic()
            await sdk.chat.completions.create(model="m", messages=HELLO)
            raw = await sdk.chat.completions.with_raw_response.create(model="m", messages=HELLO)
        sent_s, heard_s, asked_s, waited_s = overheard.refused()

        assert overheard.statuses == [200, 429, 200]
        assert raw.retries_taken == 1
        assert before_s + LEFT_S - heard_s - TICK_S < asked_s < after_s + LEFT_S - sent_s + 1 + TICK_S
        assert waited_s > asked_s - TICK_S
        assert len(upstream.asked) == 2


async def test_a_busy_account_is_retried_after_exactly_a_second(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B1: the account's one slot is taken by a stream; a second request is told to come again in a second, by when the
    stream has ended, and does.
    """  # noqa: D205
    overheard, waits, ended = Overheard(), [], asyncio.Event()

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        await ended.wait()

    monkeypatch.setattr(anyio, "sleep", wait)
    tiers = "  free: {limits: {tokens: {day: 100000}}, concurrency: 1}"
    turns = (said("one", paced=True), said("two"))
    async with sdk_upstream(*turns) as upstream, stand(tmp_path, valkey, upstream.port, tiers=tiers) as here:
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key, http_client=overheard.client()) as sdk:
            stream = await sdk.chat.completions.create(model="m", messages=HELLO, stream=True)
            second = asyncio.create_task(sdk.chat.completions.create(model="m", messages=HELLO))

            async def refused() -> bool:
                return 429 in overheard.statuses

            await until(refused)
            for _ in range(2):
                upstream.go_on.release()
            assert [chunk async for chunk in stream]
            ended.set()
            answer = await second

        assert answer.choices[0].message.content == "two"
        assert overheard.statuses == [200, 429, 200]
        assert waits == [1]


async def test_a_used_up_month_is_not_retried(tmp_path: Path, valkey: ValkeyServer) -> None:
    """B1: where only paying helps, the SDK is told so and asks once, not three times; an app can tell it from a wait
    by its code, and the upstream hears nothing.
    """  # noqa: D205
    overheard = Overheard()
    tiers = "  free: {limits: {requests: {month: {maximum: 1, remedy: pay}}}}"
    async with sdk_upstream() as upstream, stand(tmp_path, valkey, upstream.port, tiers=tiers) as here:
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key, http_client=overheard.client()) as sdk:
            await sdk.chat.completions.create(model="m", messages=HELLO)
            with pytest.raises(openai.RateLimitError, match="a larger plan does") as raised:
                await sdk.chat.completions.create(model="m", messages=HELLO)

        assert (raised.value.code, raised.value.type) == ("insufficient_quota", "insufficient_quota")
        assert "retry-after" not in raised.value.response.headers
        assert overheard.statuses == [200, 429]
        assert len(upstream.asked) == 1


async def test_a_failing_upstream_is_retried_and_costs_nothing(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F2, F5: the upstream's 500 comes through as the SDK's own InternalServerError, after the SDK's own retries; none
    of the three tries is charged.
    """  # noqa: D205
    overheard = Overheard()
    async with sdk_upstream(FAILED) as upstream, stand(tmp_path, valkey, upstream.port) as here:
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key, http_client=overheard.client()) as sdk:
            with pytest.raises(openai.InternalServerError, match="oh no"):
                await sdk.chat.completions.create(model="m", messages=HELLO)
        events = [await here.event(headers["x-request-id"]) for _, _, headers in overheard.answers]

        assert len(upstream.asked) == 3
        assert [(event.requests, event.input_tokens, event.output_tokens) for event in events] == [(0, 0, 0)] * 3
        assert (await limit_of(here, key, "requests/hour"))["used"] == 0


async def test_a_passing_failure_is_hidden_by_one_retry(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F5: an upstream that fails once costs the app a moment; the try that worked is charged, once."""
    async with sdk_upstream(FAILED, said("fine")) as upstream, stand(tmp_path, valkey, upstream.port) as here:
        key = await here.account()
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key) as sdk:
            answer = await sdk.chat.completions.create(model="m", messages=HELLO)
        event = await here.event(str(answer._request_id))

        assert answer.choices[0].message.content == "fine"
        assert (event.requests, event.input_tokens, event.output_tokens) == (1, 9, 4)
        assert (await limit_of(here, key, "tokens/month"))["used"] == 13


@pytest.mark.parametrize(("tier", "hourly"), [("free", 50), ("premium", 500), ("ultra", 2000)])
async def test_the_shipped_tiers_allow_what_they_say_an_hour(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, tier: str, hourly: int
) -> None:
    """D1: 50, 500 and 2,000 requests in a clock hour, not one more: what was used before the live counters were lost
    counts, and every later answer tells what is left.
    """  # noqa: D205
    clock = shifted_clock(monkeypatch)
    clock.put(window_s=3600, left_s=1800)
    shipped = yaml.safe_load(data_file("config", "gateway.yaml").read_text())["tiers"]
    tiers = "  " + yaml.safe_dump(shipped, default_flow_style=True, width=10_000)
    async with sdk_upstream() as upstream, stand(tmp_path, valkey, upstream.port, tiers=tiers) as here:
        key = await here.account(tier=tier)
        past = [an_event(f"past-{n}", admitted_ms=clock.now_ms, settled_ms=clock.now_ms) for n in range(hourly - 3)]
        assert await here.ledger.take_events(past) == hourly - 3
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=key, max_retries=0) as sdk:
            left = [
                (await sdk.models.with_raw_response.list()).headers["x-ratelimit-remaining-requests"] for _ in range(3)
            ]
            with pytest.raises(openai.RateLimitError, match=f"Limit of {hourly:,} requests per hour") as raised:
                await sdk.models.list()

        assert left == ["2", "1", "0"]
        assert len(upstream.lines) == 3
        assert raised.value.response.headers["x-ratelimit-limit-requests"] == str(hourly)
        assert 1770 <= int(raised.value.response.headers["retry-after"]) <= 1800


async def test_a_revoked_key_is_refused_at_its_next_request(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F4: a key that leaked and was revoked works no more, though it was used a moment ago; the account's other key
    goes on.
    """  # noqa: D205
    async with sdk_upstream() as upstream, stand(tmp_path, valkey, upstream.port) as here:
        leaked = await here.account()
        kept = await here.key("acme")
        async with AsyncOpenAI(base_url=here.url + "/v1", api_key=leaked) as sdk:
            await sdk.chat.completions.create(model="m", messages=HELLO)
            await here.ledger.revoke_key(leaked[3:15], now_ms())

            async def told() -> bool:
                return not await here.ledger.pending_bumps()

            await until(told)
            with pytest.raises(openai.AuthenticationError) as raised:
                await sdk.chat.completions.create(model="m", messages=HELLO)
            await sdk.with_options(api_key=kept).chat.completions.create(model="m", messages=HELLO)

        assert raised.value.code == "revoked_api_key"
        assert len(upstream.asked) == 2
