"""The tokenizer: counts where an upstream reported no usage, off the loop, bounded, without a network (row B9)."""

import asyncio
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from gateway.metering import tokenizer as module
from gateway.metering.tokenizer import Tokenizer, TokenizerError, load_vocabulary, pieces, save_vocabulary
from tests.support.encoding import NAME, install_tiny, tiny_encoding, tiny_vocabulary


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    """One that has a vocabulary."""
    install_tiny(tmp_path)
    return Tokenizer(NAME, tmp_path)


async def test_counts_what_tiktoken_counts(tokenizer: Tokenizer) -> None:
    """The count is tiktoken's own; else accounts whose upstream reports no usage pay for something else."""
    text = "hello world, the gateway counts the token 12345 times\n\né😀 <|endoftext|>"

    assert tokenizer.available
    assert await tokenizer.count(text) == len(tiny_encoding().encode_ordinary(text))
    assert await tokenizer.count("") == 0


@pytest.mark.parametrize("unit", [" ", "\n", "a", "^", "aA", "\ud800", "😀", "the "])
async def test_long_runs_neither_crash_nor_stall(tokenizer: Tokenizer, unit: str) -> None:
    """A million spaces crash tiktoken's regex: an answer made of them must be counted all the same, and soon."""
    text = unit * (module.MAX_CHARS // len(unit))

    async with asyncio.timeout(20):
        tokens = await tokenizer.count(text)

    assert tokens is not None
    assert tokens >= len(text) // 4


async def test_a_text_above_the_cap_is_scaled(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut off is not given away: a text of three times the cap costs three times what the cap costs."""
    monkeypatch.setattr(module, "MAX_CHARS", 3000)

    assert await tokenizer.count("x, " * 3000) == 3 * len(tiny_encoding().encode_ordinary("x, " * 1000))


async def test_too_many_at_once_are_answered_none(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm of answers without usage fills a bounded queue, not the memory; the rest are estimated."""
    monkeypatch.setattr(module, "MAX_WAITING", 3)

    counts = await asyncio.gather(*(tokenizer.count("hello world") for _ in range(10)))

    assert counts == [2] * 3 + [None] * 7
    assert await tokenizer.count("hello world") == 2


async def test_a_caller_that_gives_up_frees_its_place(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled count must not hold a place in the queue for ever, or counting ends for everybody."""
    monkeypatch.setattr(module, "MAX_WAITING", 1)
    given_up = asyncio.create_task(tokenizer.count("hello " * 1000))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)

    assert await tokenizer.count("hello world") == 2


async def test_counts_again_after_close(tokenizer: Tokenizer) -> None:
    """`close` ends the thread, not the tokenizer: a late settle at shutdown still gets its count."""
    assert await tokenizer.count("hello world") == 2
    tokenizer.close()

    assert await tokenizer.count("hello world") == 2
    tokenizer.close()


async def test_without_a_vocabulary_it_says_so(tmp_path: Path) -> None:
    """Without a vocabulary the gateway runs on estimates, and the operator reads how to mend that."""
    tokenizer = Tokenizer(NAME, tmp_path)

    assert not tokenizer.available
    assert await tokenizer.count("hello") is None
    assert "tollway tokenizer install" in tokenizer.problem


async def test_a_damaged_vocabulary_counts_nothing(tmp_path: Path) -> None:
    """One flipped bit on disk must not become wrong bills: the digest is checked, and the count refused."""
    path = install_tiny(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    tokenizer = Tokenizer(NAME, tmp_path)

    assert await tokenizer.count("hello") is None
    assert not tokenizer.available
    assert "damaged" in tokenizer.problem


async def test_a_vocabulary_that_makes_no_encoding_counts_nothing(tmp_path: Path) -> None:
    """A pattern that tiktoken can't compile is told of, not raised into a settle."""
    save_vocabulary(msgspec.structs.replace(tiny_vocabulary(), pattern="("), tmp_path)
    tokenizer = Tokenizer(NAME, tmp_path)

    assert await tokenizer.count("hello") is None
    assert "makes no encoding" in tokenizer.problem


def test_an_unreadable_vocabulary_is_an_error_with_a_path(tmp_path: Path) -> None:
    """Whoever packages the gateway learns which file is wrong."""
    for content in (b"", b"x" * 10, sha256(b"\x01").digest() + b"\x01"):
        path = tmp_path / "some.vocabulary"
        path.write_bytes(content)
        with pytest.raises(TokenizerError, match=r"some\.vocabulary"):
            load_vocabulary(path)
    with pytest.raises(TokenizerError, match="can't be read"):
        load_vocabulary(tmp_path / "none.vocabulary")


def test_saving_leaves_no_part_behind(tmp_path: Path) -> None:
    """A vocabulary is written whole or not at all: a gateway that starts meanwhile never reads half of one."""
    install_tiny(tmp_path)
    path = install_tiny(tmp_path)

    assert list(tmp_path.iterdir()) == [path]
    assert load_vocabulary(path) == tiny_vocabulary()


def test_pieces_cut_before_white_space() -> None:
    """A token begins at its space, so that a cut there costs no extra token."""
    text = ("hello world" * 3 + " ") * 2000

    cut = list(pieces(text))

    assert "".join(cut) == text
    assert max(map(len, cut)) <= module.PIECE_CHARS
    assert all(piece.startswith(" ") for piece in cut[1:])
