"""Counts the tokens of an answer's text, where the upstream reported no usage: in a thread, bounded, never on the loop.

Owns the vocabulary file: a SHA-256 digest, then MessagePack. `install` makes it from tiktoken's own download; at run
time nothing is fetched. Without the file, with a damaged one, or with too much waiting, `count` answers None and the
caller falls back on its estimate. The first count loads the vocabulary: about 100 ms once, and 80 MB.
"""

import asyncio
import importlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

MAX_WAITING = 32
"""Counts under way or waiting; one more is answered None at once."""

MAX_CHARS = 1 << 19
"""The part of a text that is counted; a longer one is scaled up from it."""

PIECE_CHARS = 8 << 10
"""A text is counted in pieces of this size: long runs without a break cost tiktoken's regex its stack (a million
spaces crash it) and its merges more than linear time."""

_DIGEST_BYTES = 32


class TokenizerError(Exception):
    """The vocabulary can't be installed or loaded. The text says why and what to do."""


class Vocabulary(msgspec.Struct, frozen=True):
    """What an encoding is made of: how text is split, and the rank of each mergeable token."""

    name: str
    pattern: str
    ranks: dict[bytes, int]
    special_tokens: dict[str, int]


class Tokenizer:
    """Counts with one encoding. `available` until the vocabulary is found missing or damaged; `problem` says why."""

    def __init__(self, encoding: str, directory: Path) -> None:
        self._path = vocabulary_path(encoding, directory)
        self._encoding: Any = None
        self._waiting = 0
        self._thread: ThreadPoolExecutor | None = None
        self.available = self._path.is_file()
        self.problem = (
            "" if self.available else f"there is no vocabulary at {self._path}; run `tollway tokenizer install`"
        )

    async def count(self, text: str) -> int | None:
        """The tokens of a text, None where they can't be counted."""
        if not text:
            return 0
        if not self.available or self._waiting >= MAX_WAITING:
            return None
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._count, text)
        except TokenizerError as error:
            self.available = False
            self.problem = str(error)
            return None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the thread; what still waits is dropped. A later count starts another."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None

    def _count(self, text: str) -> int:
        if self._encoding is None:
            self._encoding = _encoding(load_vocabulary(self._path))
        counted = text[:MAX_CHARS]
        tokens = sum(len(self._encoding.encode_ordinary(piece)) for piece in pieces(counted))
        return tokens if len(counted) == len(text) else -(-tokens * len(text) // len(counted))


def pieces(text: str) -> Iterator[str]:
    """The text in pieces of at most `PIECE_CHARS`, cut before white space where there is some: a token begins there."""
    start = 0
    while len(text) - start > PIECE_CHARS:
        end = start + PIECE_CHARS
        cut = max(text.rfind(" ", start + 1, end), text.rfind("\n", start + 1, end))
        cut = end if cut < 0 else cut
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]


def vocabulary_path(encoding: str, directory: Path) -> Path:
    """Where an encoding's vocabulary lies."""
    return directory / f"{encoding}.vocabulary"


def load_vocabulary(path: Path) -> Vocabulary:
    """Read a vocabulary and check its digest. Raises TokenizerError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"the vocabulary {path} can't be read: {error.strerror or error}") from error
    digest, body = content[:_DIGEST_BYTES], memoryview(content)[_DIGEST_BYTES:]
    if sha256(body).digest() != digest:
        raise TokenizerError(f"the vocabulary {path} is damaged; run `tollway tokenizer install` again")
    try:
        return msgspec.msgpack.decode(body, type=Vocabulary)
    except msgspec.DecodeError as error:
        raise TokenizerError(f"the vocabulary {path} is of another version; install it again") from error


def save_vocabulary(vocabulary: Vocabulary, directory: Path) -> Path:
    """Write a vocabulary whole or not at all; return its path. Raises OSError."""
    body = msgspec.msgpack.encode(vocabulary)
    directory.mkdir(parents=True, exist_ok=True)
    path = vocabulary_path(vocabulary.name, directory)
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".vocabulary-", delete=False) as file:
        file.write(sha256(body).digest() + body)
    written = Path(file.name)
    written.chmod(0o644)
    return written.replace(path)


def install(encoding: str, directory: Path) -> Path:
    """Have tiktoken fetch (or find in its cache) and check an encoding, and keep it. Raises TokenizerError."""
    tiktoken = _tiktoken()
    if encoding not in tiktoken.list_encoding_names():
        names = ", ".join(tiktoken.list_encoding_names())
        raise TokenizerError(f"there is no encoding {encoding!r}; tiktoken knows {names}")
    try:
        fetched = tiktoken.get_encoding(encoding)
    except (OSError, ValueError) as error:
        raise TokenizerError(
            f"the vocabulary of {encoding} could not be fetched: {error}. Fetching it takes the internet once; "
            "where there is none, set TIKTOKEN_CACHE_DIR to a directory that tiktoken has filled elsewhere. "
            "Tollway runs without it, and marks what it can't count as an estimate"
        ) from error
    # tiktoken keeps what an encoding was made of in these, and offers no other way to it.
    vocabulary = Vocabulary(encoding, fetched._pat_str, fetched._mergeable_ranks, fetched._special_tokens)  # noqa: SLF001
    try:
        return save_vocabulary(vocabulary, directory)
    except OSError as error:
        raise TokenizerError(f"the vocabulary can't be written to {directory}: {error.strerror or error}") from error


def _encoding(vocabulary: Vocabulary) -> Any:
    try:
        return _tiktoken().Encoding(
            vocabulary.name,
            pat_str=vocabulary.pattern,
            mergeable_ranks=vocabulary.ranks,
            special_tokens=vocabulary.special_tokens,
        )
    except ValueError as error:
        raise TokenizerError(f"the vocabulary {vocabulary.name} makes no encoding: {error}") from error


def _tiktoken() -> Any:
    """Tiktoken, imported when first needed: it costs start time and memory, and most gateways never count a text."""
    return importlib.import_module("tiktoken")
