"""Foreign bytes against the HTTP server: however they are cut, the same answers; however they are bent, an end."""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.http_server import HurriedProtocol, Served, calling, echo, served

VALID = (
    b"GET /1?a=b HTTP/1.1\r\nHost: a\r\nX-A:  b \r\n\r\n"
    b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    b"\r\nPOST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: 1\r\n\r\n"
    b"POST /4 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi"
    b"HEAD http://b/5 HTTP/1.1\r\nHost: a\r\n\r\n"
    b"OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    b"POST /7 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
)
REPEATED = [
    b"POST / HTTP/1.1\r\nHost: a\r\nX: 1\r\nContent-Length: 5\r\nY: 2\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nX: 1\r\nContent-Length: 12\r\nY: 2\r\n\r\nhello\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nX: 1\r\nContent-Length: 0\r\nY: 2\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nX: 1\r\nContent-Length: 5\r\nY: 3\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 0003\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: x\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: a\r\nX: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: b\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /?x HTTP/1.1\r\nHost: a\r\n\r\n",
]
"""Requests that keep their connection, alike enough to be taken for each other."""
fuzz = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


Run = Callable[[list[bytes], bool], bytes]


@pytest.fixture
def talk() -> Iterator[Run]:
    """Says pieces to a server on the loop that the gateway runs on; whatever a protocol raises there fails the test.

    A caller that has said its end is answered by a server whose patience outlasts the test: were it to wait, it would
    be found out, and a machine that stands still changes no answer. A caller that stays meets a hurried one.
    """
    raised: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: raised.append(context))
        serving = served(echo, protocol=HurriedProtocol, timeout_keep_alive=0.1), served(echo, timeout_keep_alive=600)
        hurried, patient = [runner.run(one.__aenter__()) for one in serving]
        yield lambda pieces, ends: runner.run(said(patient if ends else hurried, pieces, ends=ends))
        for one in serving:
            runner.run(one.__aexit__(None, None, None))
    assert raised == []


async def said(server: Served, pieces: list[bytes], *, ends: bool = True) -> bytes:
    """Everything that the server answers to the pieces, until it closes; the one thing that it may not do is wait."""
    async with calling(server) as caller, asyncio.timeout(20):
        port = b":%d" % caller.writer.get_extra_info("sockname")[1]
        try:
            await caller.say(*pieces, b"")
            if ends and not caller.writer.is_closing():
                caller.writer.write_eof()
            heard = await caller.rest()
        except ConnectionResetError:
            return b"reset"
        return _same(heard, port)


def test_requests_cut_in_two_at_any_byte_get_the_same_answers(talk: Run) -> None:
    """TCP may cut anywhere; a parser with a seam would read one caller's bytes as another request."""
    whole = talk([VALID], True)

    assert whole.count(b"HTTP/1.1 200 OK\r\n") == 7
    for cut in range(1, len(VALID)):
        assert talk([VALID[:cut], VALID[cut:]], True) == whole, cut


@fuzz
@given(sizes=st.lists(st.integers(1, 90), max_size=60))
def test_requests_in_any_pieces_get_the_same_answers(talk: Run, sizes: list[int]) -> None:
    """The same, for many cuts at once."""
    pieces, rest = [], VALID
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]

    assert talk([*pieces, rest], True) == talk([VALID], True)


@fuzz
@given(data=st.data())
def test_bent_requests_come_to_an_end(talk: Run, data: st.DataObject) -> None:
    """F1: no byte of a client may hang a connection, raise in the loop, or get an answer that is not HTTP."""
    at = data.draw(st.integers(0, len(VALID)))
    until = data.draw(st.integers(at, min(len(VALID), at + 8)))
    bend = data.draw(st.binary(max_size=8) | st.sampled_from([b"\r\n", b"\0", b"-1", b": ", b"\r\n\r\n", b"ffffffff"]))
    bent = VALID[:at] + bend + VALID[until:]
    cut = data.draw(st.integers(0, len(bent)))

    heard = talk([bent[:cut], bent[cut:]], data.draw(st.sampled_from([True, True, True, True, False])))

    assert heard.startswith((b"HTTP/1.1 ", b"reset")) or heard == b""


@fuzz
@given(wires=st.lists(st.sampled_from(REPEATED), min_size=2, max_size=8), cut=st.integers(0, 40))
def test_a_request_is_read_the_same_whatever_came_before(talk: Run, wires: list[bytes], cut: int) -> None:
    """A head like the last one is recognised instead of parsed: what it then says must be what a parser would read."""
    alone = [talk([wire], True) for wire in wires]
    together = b"".join(wires[:-1])

    assert talk(wires, True) == b"".join(alone)
    assert talk([*wires[:-1], wires[-1][:cut], wires[-1][cut:]], True) == b"".join(alone)
    assert talk([together + wires[-1][:cut], wires[-1][cut:]], True) == b"".join(alone)


@pytest.mark.parametrize("begun", [b"P", b"POST", b"POST / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nX: a"])
def test_a_known_head_is_not_found_inside_another(talk: Run, begun: bytes) -> None:
    """Bytes that look like the last request, behind the beginning of another, are a part of that other: to take them
    for a request of their own would smuggle one.
    """  # noqa: D205
    wire = REPEATED[0]

    assert talk([wire, wire, wire + begun, wire], True) == talk([wire, wire, wire + begun + wire], True)


@fuzz
@given(pieces=st.lists(st.binary(max_size=80), max_size=4))
def test_noise_comes_to_an_end(talk: Run, pieces: list[bytes]) -> None:
    """The same, for bytes that were never HTTP."""
    heard = talk(pieces, True)

    assert heard.startswith(b"HTTP/1.1 400 ") or heard == b""


_REQUEST_ID = re.compile(rb"x-request-id: \w+")


def _same(heard: bytes, port: bytes) -> bytes:
    """Without what differs from one talk to the next: the client's port, interim answers, and lengths that follow."""
    without = heard.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"").replace(port[1:], b"PORT")
    without = _REQUEST_ID.sub(b"", without)
    return b"\r\n".join(line for line in without.split(b"\r\n") if not line.startswith(b"content-length: "))
