"""The OpenAI dialect of endpoints that read and write nothing: `/v1/embeddings`.

Only the input costs; texts are estimated by their length, arrays of tokens by their count. Errors as in `OpenAI`.
"""

import msgspec

from gateway.dialects.dialect import Ask
from gateway.dialects.embedded_media import BYTES_PER_TOKEN, text_bytes
from gateway.dialects.json_body import decode, without_mark
from gateway.dialects.openai import OpenAI


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    input: msgspec.Raw = msgspec.Raw()


_request = msgspec.json.Decoder(_Request)


class OpenAIEmbeddings(OpenAI):
    """A `Dialect`."""

    name = "openai-embeddings"

    def read_request(self, body: bytes, path: bytes) -> Ask:
        """What the body asks for: no output at all. Raises Fault(INVALID_BODY)."""
        del path
        body = without_mark(body)
        asked = decode(_request, body) if body else _Request()
        return Ask(
            model=asked.model or "",
            streamed=False,
            prompt_bytes=_prompt_bytes(body, bytes(asked.input)),
            max_output=0,
            choices=1,
            body=body,
        )

    def answer_text(self, body: bytes) -> str:
        """None: vectors are no text."""
        del body
        return ""


def _prompt_bytes(body: bytes, texts: bytes) -> int:
    """The text's length; tokens are counted by their commas, each as the text that would cost as much."""
    if not texts.startswith(b"[") or b'"' in texts or b"{" in texts:
        return text_bytes(body)
    return (texts.count(b",") + 1) * BYTES_PER_TOKEN
