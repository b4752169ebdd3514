"""The line writer on a real pipe: whole lines, in order, without waiting for a slow reader."""

import asyncio
import os
import select
from collections.abc import Iterator

import pytest

from gateway.telemetry.line_writer import LineWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's read and write end."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue  # the test closed it


def _read_available(fd: int) -> bytes:
    data = b""
    while select.select([fd], [], [], 0)[0]:
        piece = os.read(fd, 65_536)
        if not piece:
            break
        data += piece
    return data


async def _next_bytes(fd: int) -> bytes:
    data = b""
    async with asyncio.timeout(20):
        while not data:
            await asyncio.sleep(0.01)
            data = _read_available(fd)
    return data


def _fail() -> None:
    raise ValueError("a teller's own fault")


async def test_a_reader_that_does_not_read_never_stops_the_loop(pipe: tuple[int, int]) -> None:
    """F8: a stuck log shipper must cost log lines, not requests; once it reads again it misses none that were held."""
    reader, end = pipe
    writer = LineWriter(end)
    lines = [b"%06d %s\n" % (number, b"x" * 90) for number in range(5_000)]
    for line in lines:
        writer.write(line)
    writer.flush()
    got = b""
    while got.count(b"\n") < len(lines) and (news := _read_available(reader)):
        got += news
        writer.flush()

    assert got == b"".join(lines)
    assert writer.dropped == 0


async def test_a_stuck_reader_costs_bounded_memory(pipe: tuple[int, int]) -> None:
    """F8: beyond 4 MiB lines are dropped and counted, so that the log can't exhaust the machine."""
    _, end = pipe
    writer = LineWriter(end)
    line = b"y" * 65_535 + b"\n"
    for _ in range(100):
        writer.write(line)

    assert 30 <= writer.dropped <= 40


async def test_lines_of_two_workers_never_mix(pipe: tuple[int, int]) -> None:
    """F8: workers share one standard output; half a line of each would be no line at all."""
    reader, end = pipe
    writers = LineWriter(end), LineWriter(end)
    expected = set()
    got = b""
    for number in range(2_000):
        for name, writer in zip((b"a", b"b"), writers, strict=True):
            line = b"%s%05d" % (name, number) + name * (number % 300) + b"\n"
            expected.add(line)
            writer.write(line)
        got += _read_available(reader)
    while got.count(b"\n") < len(expected):
        for writer in writers:
            writer.flush()
        news = _read_available(reader)
        assert news, "lines were lost"
        got += news

    assert set(got.splitlines(keepends=True)) == expected


async def test_a_reader_that_left_costs_lines_alone(pipe: tuple[int, int]) -> None:
    """F8: `tollway serve | head` must not bring requests down."""
    reader, end = pipe
    os.close(reader)
    writer = LineWriter(end)
    writer.write(b"one\n")
    writer.write(b"two\n")
    writer.flush()

    assert writer.dropped == 2


def test_without_a_loop_a_line_is_written_at_once(pipe: tuple[int, int]) -> None:
    """F8: the command line and threads have no loop to flush later; their last words must not be lost."""
    reader, end = pipe
    writer = LineWriter(end)
    writer.write(b"one\n")

    assert _read_available(reader) == b"one\n"


def test_a_loop_that_was_closed_does_not_strand_lines(pipe: tuple[int, int]) -> None:
    """F8: what is logged after the loop has ended (a failing stop) still comes out, with what was held before."""
    reader, end = pipe
    writer = LineWriter(end)

    async def log_one() -> None:
        writer.write(b"one\n")

    asyncio.run(log_one())
    writer.write(b"two\n")

    assert _read_available(reader) == b"one\ntwo\n"


async def test_threads_log_beside_the_loop(pipe: tuple[int, int]) -> None:
    """F8: the tokenizer's threads log while the loop flushes; each line comes out once."""
    reader, end = pipe
    writer = LineWriter(end)

    def log_many(name: int) -> None:
        for number in range(500):
            writer.write(b"%d-%d\n" % (name, number))

    got = b""
    async with asyncio.timeout(30):
        workers = asyncio.gather(*(asyncio.to_thread(log_many, name) for name in range(4)))
        while not workers.done():
            writer.flush()
            got += _read_available(reader)
            await asyncio.sleep(0)
        writer.flush()
        got += _read_available(reader)

    assert sorted(got.splitlines()) == sorted(b"%d-%d" % (name, n) for name in range(4) for n in range(500))


async def test_who_was_promised_to_be_asked_is_asked_once_and_soon(pipe: tuple[int, int]) -> None:
    """F8: request lines are made a few at a time; the last ones before a quiet hour must not wait that hour out."""
    reader, end = pipe
    writer = LineWriter(end)
    writer.expect(lambda: writer.write(b"gathered\n"))
    assert _read_available(reader) == b""
    assert await _next_bytes(reader) == b"gathered\n"

    writer.flush(wait=True)
    assert _read_available(reader) == b""


async def test_who_waits_for_the_lines_gets_the_gathered_ones_too(pipe: tuple[int, int]) -> None:
    """F8: the last lines of a worker that stops are those that say why."""
    reader, end = pipe
    writer = LineWriter(end)
    writer.write(b"first\n")
    writer.expect(lambda: writer.write(b"gathered\n"))
    writer.flush(wait=True)

    assert _read_available(reader) == b"first\ngathered\n"


async def test_a_teller_that_fails_does_not_end_the_log(pipe: tuple[int, int]) -> None:
    """F8: a fault in one teller must not silence the worker for good."""
    reader, end = pipe
    writer = LineWriter(end)
    loop, failed = asyncio.get_running_loop(), asyncio.Event()
    loop.set_exception_handler(lambda _loop, _context: failed.set())
    writer.expect(_fail)
    async with asyncio.timeout(20):
        await failed.wait()
    writer.write(b"later\n")

    assert await _next_bytes(reader) == b"later\n"
