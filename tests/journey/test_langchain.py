"""LangChain's OpenAI classes through the gateway: what its agents and cost callbacks read is right (rows F2, B3)."""

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from langchain_core.messages import AIMessageChunk
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import DefaultAsyncHttpxClient
from pydantic import SecretStr

from tests.support.openai_endpoints import endpoints, response, shipped_settings, spoken
from tests.support.own_usage import limit_of
from tests.support.sdk_upstream import VECTOR, said, sdk_upstream
from tests.support.stand import stand
from tests.support.valkey import ValkeyServer

WORDS = ("one", " two", " three")


@pytest.fixture
async def http() -> AsyncIterator[DefaultAsyncHttpxClient]:
    """The connections, which LangChain's own would leave open."""
    async with DefaultAsyncHttpxClient() as client:
        yield client


async def test_chat_tells_its_usage_whole_and_streamed(
    tmp_path: Path, valkey: ValkeyServer, http: DefaultAsyncHttpxClient
) -> None:
    """`usage_metadata` is the upstream's count and the account's bill, whether or not the answer streams."""
    async with sdk_upstream(said(*WORDS)) as upstream, stand(tmp_path, valkey, upstream.port) as here:
        key = await here.account()
        chat = ChatOpenAI(
            model="m", base_url=here.url + "/v1", api_key=SecretStr(key), stream_usage=True, http_async_client=http
        )
        whole = await chat.ainvoke("hi")
        streamed = AIMessageChunk(content="")
        async for chunk in chat.astream("hi"):
            streamed += chunk

        assert whole.text == streamed.text == "one two three"
        assert whole.usage_metadata is not None
        assert streamed.usage_metadata is not None
        assert whole.usage_metadata["total_tokens"] == streamed.usage_metadata["total_tokens"] == 13
        assert (await limit_of(here, key, "tokens/month"))["used"] == 26


async def test_a_stream_without_usage_has_no_chunk_too_many(
    tmp_path: Path, valkey: ValkeyServer, http: DefaultAsyncHttpxClient
) -> None:
    """Where LangChain doesn't ask for the usage it gets none, and the bill is right all the same."""
    async with sdk_upstream(said(*WORDS)) as upstream, stand(tmp_path, valkey, upstream.port) as here:
        key = await here.account()
        chat = ChatOpenAI(
            model="m", base_url=here.url + "/v1", api_key=SecretStr(key), stream_usage=False, http_async_client=http
        )
        chunks = [chunk async for chunk in chat.astream("hi")]

        assert "".join(chunk.text for chunk in chunks) == "one two three"
        assert all(chunk.usage_metadata is None for chunk in chunks)
        assert (await limit_of(here, key, "tokens/month"))["used"] == 13


async def test_responses_tell_their_usage(tmp_path: Path, valkey: ValkeyServer, http: DefaultAsyncHttpxClient) -> None:
    """The Responses API, which LangChain takes for reasoning models: whole and streamed, cached tokens told."""
    async with (
        endpoints(responses=response("one two three")) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=shipped_settings()) as here,
    ):
        key = await here.account()
        chat = ChatOpenAI(
            model="m", base_url=here.url + "/v1", api_key=SecretStr(key), use_responses_api=True, http_async_client=http
        )
        whole = await chat.ainvoke("hi")
        upstream.answers["/v1/responses"] = spoken(WORDS)
        streamed = AIMessageChunk(content="")
        async for chunk in chat.astream("hi"):
            streamed += chunk

        assert whole.text == streamed.text == "one two three"
        for message in (whole, streamed):
            assert message.usage_metadata is not None
            assert (message.usage_metadata["input_tokens"], message.usage_metadata["output_tokens"]) == (9, 4)
            assert message.usage_metadata["input_token_details"]["cache_read"] == 3
        assert (await limit_of(here, key, "tokens/month"))["used"] == 26


async def test_embeddings_and_a_refusal(tmp_path: Path, valkey: ValkeyServer, http: DefaultAsyncHttpxClient) -> None:
    """Vectors come as they are; a limit raises what LangChain's own retry and fallback look for."""
    tiers = "  free: {limits: {tokens: {day: 500}}}"
    async with (
        sdk_upstream() as upstream,
        stand(tmp_path, valkey, upstream.port, tiers=tiers, settings=shipped_settings()) as here,
    ):
        key, url = await here.account(), here.url + "/v1"
        vectors = OpenAIEmbeddings(
            model="m", base_url=url, api_key=SecretStr(key), check_embedding_ctx_length=False, http_async_client=http
        )
        chat = ChatOpenAI(model="m", base_url=url, api_key=SecretStr(key), max_retries=0, http_async_client=http)

        assert [tuple(one) for one in await vectors.aembed_documents(["one"])] == [VECTOR]
        assert (await limit_of(here, key, "tokens/day"))["used"] == 5
        with pytest.raises(openai.RateLimitError):
            await chat.ainvoke("x" * 2000)
