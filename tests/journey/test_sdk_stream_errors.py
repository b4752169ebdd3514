"""Every official SDK where a stream breaks or falls silent: half an answer is an error, and a sign of life is none."""

from pathlib import Path

import msgspec
import pytest

from gateway.dialects.registry import DIALECTS
from tests.journey.test_sdk_errors import EVERY_ROUTE, error_of, every_sdk
from tests.support.openai_endpoints import spoken
from tests.support.openai_wire import DONE, chunk, usage_chunk
from tests.support.scripted_upstream import Streamed, scripted_upstream
from tests.support.sdk_callers import Sdk, raised_by, waits_of_sdks
from tests.support.stand import stand
from tests.support.valkey import ValkeyServer
from tests.support.wire_recordings import events

WHOLE = {
    "openai": [chunk("one"), chunk(" two"), chunk(" three"), chunk(None, finish="stop"), usage_chunk(9, 4) + DONE],
    "openai-responses": [*spoken(("one", " two", " three"))],
    "anthropic": events("anthropic/anthropic-text"),
    "gemini": events("gemini/google-text"),
}
ERROR = {"message": "the model fell over", "type": "server_error", "param": None, "code": "oops"}
ERRORS = {
    "openai": b"data: " + msgspec.json.encode({"error": ERROR}) + b"\n\n",
    "openai-responses": b"event: error\ndata: "
    + msgspec.json.encode({"sequence_number": 4, "error": ERROR} | ERROR | {"type": "error"})
    + b"\n\n",
    "anthropic": b"event: error\ndata: "
    + msgspec.json.encode({"type": "error", "error": {"type": "api_error", "message": "the model fell over"}})
    + b"\n\n",
    "gemini": b"data: "
    + msgspec.json.encode({"error": {"code": 503, "message": "the model fell over", "status": "UNAVAILABLE"}})
    + b"\r\n\r\n",
}


@every_sdk
@pytest.mark.parametrize("told", [True, False])
async def test_half_a_stream_raises_once(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, sdk: Sdk, told: bool
) -> None:
    """F5: an upstream that dies in the middle, or says in the stream that it failed, raises the SDK's own error with a
    text that says which; no SDK asks again, as the app has half an answer in hand and was charged for it.
    """  # noqa: D205
    waits = waits_of_sdks(monkeypatch)
    pieces = WHOLE[sdk.dialect][:2]
    script = Streamed([*pieces, ERRORS[sdk.dialect]] if told else pieces, cut=True)
    async with (
        scripted_upstream(script) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=EVERY_ROUTE) as here,
        sdk.caller(here.url, await here.account(), waits) as ask,
    ):
        raised = await raised_by(ask, streamed=True)

    assert raised is not None
    assert raised.error == error_of(sdk, "inside a stream")
    assert ("the model fell over" if told else "cut short") in raised.message
    assert len(upstream.asked) == 1
    assert waits.asked_s == []


@every_sdk
async def test_a_sign_of_life_is_nothing_to_an_sdk(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, sdk: Sdk
) -> None:
    """F2: a model thinks for half a minute, and what keeps its stream open meanwhile raises in no app. Google's SDK
    for Python takes a comment for JSON: its streams get an empty line.
    """  # noqa: D205
    waits = waits_of_sdks(monkeypatch)
    sign = DIALECTS[sdk.dialect].sign_of_life
    pieces = [part for piece in WHOLE[sdk.dialect] for part in (sign, piece)]
    async with (
        scripted_upstream(Streamed(pieces)) as upstream,
        stand(tmp_path, valkey, upstream.port, settings=EVERY_ROUTE) as here,
        sdk.caller(here.url, await here.account(), waits) as ask,
    ):
        assert await raised_by(ask, streamed=True) is None
