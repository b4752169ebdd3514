"""The columns of the matrix: each dialect's wire and client, and the settings of a gateway with a route for each."""

from dataclasses import dataclass

from tests.support.matrix import clients_openai, clients_other
from tests.support.matrix.anthropic_messages import Messages
from tests.support.matrix.clients import Client
from tests.support.matrix.endings import HELD_TOKENS, SCANT_TOKENS
from tests.support.matrix.gemini_content import Content
from tests.support.matrix.openai_chat import Chat, Completions
from tests.support.matrix.openai_typed import Images, Responses, Speech, Transcriptions
from tests.support.matrix.unread import Anything, Embeddings
from tests.support.matrix.wire import Wire

SLICE_TOKENS = 64
POLICIES = [(exhausted, disconnect) for exhausted in ("stop", "finish") for disconnect in ("cancel", "drain")]

_ROUTES = {
    "/v1/chat/completions": "openai",
    "/v1/completions": "openai",
    "/v1/responses": "openai-responses",
    "/v1/embeddings": "openai-embeddings",
    "/v1/images/generations": "openai-images",
    "/v1/audio/speech": "openai-speech",
    "/v1/audio/transcriptions": "openai-transcriptions",
    "/v1/messages": "anthropic",
    "/v1beta/models/*": "gemini",
    "/v1/*": "plain",
}

_LINES = "".join(
    f"  - {{{{ path: {path}, upstream: main, dialect: {dialect}, default_max_tokens: {HELD_TOKENS} }}}}\n"
    for path, dialect in _ROUTES.items()
)
SETTINGS = f"""
listen: {{{{ port: 0, shutdown_grace_s: 5, max_body_mb: 1 }}}}
data_dir: {{data_dir}}
redis: {{{{ url: "{{redis_url}}", namespace: tw, timeout_ms: 10000 }}}}
log: {{{{ requests: false }}}}
metering: {{{{ flush_interval_ms: 20, extend_slice_tokens: {SLICE_TOKENS} }}}}
upstreams:
  main: {{{{ url: "http://127.0.0.1:{{upstream_port}}", api_key: upstream-secret }}}}
routes:
{_LINES}tiers:
{{tiers}}
default_tier: free
"""


def tier(exhausted: str, disconnect: str, *, scant: bool) -> str:
    """The tier's name."""
    return f"{exhausted}-{disconnect}" + ("-scant" if scant else "")


TIERS = "  free: {limits: {requests: {hour: 1000}}}\n" + "\n".join(
    f"  {tier(exhausted, disconnect, scant=scant)}: {{limits: {{requests: {{hour: 1000}}, tokens: {{day: {tokens}}}}}, "
    f"on_exhausted: {exhausted}, on_disconnect: {disconnect}}}"
    for exhausted, disconnect in POLICIES
    for scant, tokens in ((False, 100_000), (True, SCANT_TOKENS))
)


@dataclass(frozen=True, slots=True)
class Column:
    """One dialect. `stops_as` is the finish reason with which a stream ends that the quota stopped, "" where none can.

    `silent` dialects hold no output (`HELD_TOKENS` otherwise).
    """

    wire: Wire
    client: Client
    stops_as: str = "length"
    silent: bool = False


COLUMNS: dict[str, Column] = {
    "chat": Column(Chat(), clients_openai.CHAT),
    "completions": Column(Completions(), clients_openai.COMPLETIONS),
    "responses": Column(Responses(), clients_openai.RESPONSES),
    "messages": Column(Messages(), clients_other.MESSAGES_CLIENT),
    "gemini events": Column(Content(array=False), clients_other.EVENTS),
    "gemini array": Column(Content(array=True), clients_other.ARRAY),
    # A transcript has one kind of end.
    "transcriptions": Column(Transcriptions(), clients_openai.TRANSCRIPTIONS, stops_as="stop"),
    "speech": Column(Speech(), Client(clients_openai.speech_whole, clients_other.speech_stream), stops_as=""),
    "images": Column(Images(), clients_openai.IMAGES, stops_as=""),
    "embeddings": Column(Embeddings(), clients_openai.EMBEDDINGS, silent=True),
    "plain": Column(Anything(), clients_other.ANYTHING, silent=True),
}
