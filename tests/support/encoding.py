"""A tiny real tiktoken encoding, as no vocabulary can be fetched in tests."""

from pathlib import Path

import tiktoken

from gateway.metering.tokenizer import Vocabulary, save_vocabulary

NAME = "tiny"
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""The shape of o200k_base's pattern, with the branch on runs of white space that costs the regex its stack."""

_WORDS = ("the", "token", "gateway", "counts", "hello", "world")


def tiny_vocabulary() -> Vocabulary:
    """Every byte, and a few words with and without a space before them, with all their prefixes."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    for word in _WORDS:
        for spelled in (word.encode(), b" " + word.encode()):
            for length in range(2, len(spelled) + 1):
                ranks.setdefault(spelled[:length], len(ranks))
    return Vocabulary(NAME, PATTERN, ranks, {})


def tiny_encoding() -> tiktoken.Encoding:
    """The same, as tiktoken itself builds it: what counts are compared with."""
    made_of = tiny_vocabulary()
    return tiktoken.Encoding(NAME, pat_str=PATTERN, mergeable_ranks=made_of.ranks, special_tokens={})


def install_tiny(directory: Path) -> Path:
    """Put it where a Tokenizer(NAME, directory) looks for it; return its path."""
    return save_vocabulary(tiny_vocabulary(), directory)
