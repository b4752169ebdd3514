"""The size of a prompt whose pictures, sound and files travel inside the JSON body as base64.

Base64 is not text: it is taken out, and each medium is priced by a rule instead. Only an estimate for admission: what
the upstream reports is charged, also where text was dressed up as a picture. Never raises; where there are no media it
costs a look at each of the body's first underscores, and three scans of a body with many.
"""

PICTURE_TOKENS = 1_105
"""What one 2048 x 4096 picture costs in high detail (OpenAI, "Images and vision": 85 + 6 tiles x 170)."""

SMALL_PICTURE_TOKENS = 85
"""What any picture costs in low detail (the same page)."""

SOUND_CHARS_PER_TOKEN = 1_000
"""Base64 characters a token of sound or file: 10 tokens a second (OpenAI audio input) at 64 kbit/s is 1,067."""

BYTES_PER_TOKEN = 4
"""Turns a medium's tokens into bytes of English text, the measure of `Ask.prompt_bytes`."""

_SHORTEST_BYTES = 256

_FIELD_ENDS = (b'_url"', b'_image"', b'_audio"', b'_data"')
"""How the fields end that hold media: from their underscore, as one byte is found thirty times as fast as a word."""

_MOST_UNDERSCORES = 32
"""Prose has few, code has many: beyond these, searching for the words costs less."""


def text_bytes(body: bytes) -> int:
    """The length of the text in `body`, each medium counted as the text that would cost as many tokens."""
    if not _may_hold_media(body):
        return len(body)
    pictures = max(-(-body.count(b'"image_url"') // 2), body.count(b'"input_image"'))
    if not pictures and b'"input_audio"' not in body and b'"file_data"' not in body:
        return len(body)
    encoded, tokens = _data_urls(body)
    if b'"input_audio"' in body:
        sound = _sounds(body)
        encoded, tokens = encoded + sound, tokens + sound // SOUND_CHARS_PER_TOKEN
    small = min(pictures, body.count(b'"detail":"low"') + body.count(b'"detail": "low"')) if pictures else 0
    tokens += (pictures - small) * PICTURE_TOKENS + small * SMALL_PICTURE_TOKENS
    return max(0, len(body) - encoded) + tokens * BYTES_PER_TOKEN


def _may_hold_media(body: bytes) -> bool:
    """Whether the fields that hold media have to be searched for."""
    at = body.find(b"_")
    for _ in range(_MOST_UNDERSCORES):
        if at < 0 or body.startswith(_FIELD_ENDS, at):
            break
        at = body.find(b"_", at + 1)
    return at >= 0


def _data_urls(body: bytes) -> tuple[int, int]:
    """Base64 bytes in `data:` URLs, and the tokens of those that are no pictures."""
    encoded = tokens = 0
    at = body.find(b";base64,")
    while at >= 0:
        end = _string_end(body, at)
        url = body.rfind(b'"', max(0, at - _SHORTEST_BYTES), at) + 1
        if body.startswith(b"data:", url):
            encoded += end - at
            if not body.startswith(b"data:image", url):
                tokens += max(PICTURE_TOKENS, (end - at) // SOUND_CHARS_PER_TOKEN)
        at = body.find(b";base64,", end)
    return encoded, tokens


def _sounds(body: bytes) -> int:
    """Base64 bytes in the `data` fields of `input_audio` parts."""
    encoded = 0
    at = body.find(b'"data"')
    while at >= 0:
        start = body.find(b'"', at + 6) + 1
        if not start or body[at + 6 : start - 1].strip() != b":":
            at = body.find(b'"data"', at + 6)
            continue
        end = _string_end(body, start)
        if end - start >= _SHORTEST_BYTES and not body.startswith(b"data:", start):
            encoded += end - start
        at = body.find(b'"data"', end)
    return encoded


def _string_end(body: bytes, start: int) -> int:
    end = body.find(b'"', start)
    return len(body) if end < 0 else end
