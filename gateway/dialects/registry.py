"""The dialects by the name they have in gateway.yaml."""

import re

from gateway.dialects.anthropic import Anthropic
from gateway.dialects.dialect import Dialect
from gateway.dialects.gemini import Gemini
from gateway.dialects.openai import OpenAI
from gateway.dialects.openai_audio import OpenAISpeech, OpenAITranscriptions
from gateway.dialects.openai_embeddings import OpenAIEmbeddings
from gateway.dialects.openai_images import OpenAIImages
from gateway.dialects.openai_realtime import OpenAIRealtime
from gateway.dialects.openai_responses import OpenAIResponses
from gateway.dialects.plain import Plain

_ALL: tuple[Dialect, ...] = (
    OpenAI(),
    OpenAIResponses(),
    OpenAIEmbeddings(),
    OpenAIImages(),
    OpenAISpeech(),
    OpenAITranscriptions(),
    OpenAIRealtime(),
    Anthropic(),
    Gemini(),
    Plain(),
)

_GEMINI = re.compile(r"/v1(beta|alpha)/|/models/[^/]+:[a-zA-Z]+$")

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in _ALL}


def dialect_of_path(path: str) -> Dialect:
    """The dialect in whose shape the clients that ask for `path` read errors, where no route says: a guess."""
    if "/v1/messages" in path:
        return DIALECTS["anthropic"]
    return DIALECTS["gemini" if _GEMINI.search(path) else "openai"]
