"""What large bodies and idle WebSockets cost in memory: `tollway serve` as its users run it, watched through /proc."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.far_server import BLOCK, FarServer
from tests.support.serving import SETTINGS, Serving

SIZE = 200_000_000
WARMING = 20_000_000
MOST_GROWTH_KB = 20 * 1024
WEBSOCKETS, MOST_EACH_KB = 200, 50


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A gateway before an upstream of large bodies."""
    with FarServer() as far:
        upstream = f"upstreams:\n  far: {{{{ url: http://127.0.0.1:{far.port}, auth: none }}}}"
        settings = SETTINGS.replace("upstreams:", upstream)
        settings = settings.replace("routes:", "routes:\n  - {{ path: /far/*, upstream: far, dialect: plain }}")
        with Serving(tmp_path_factory.mktemp("memory"), settings=settings) as here:
            yield here


def figures_kb(serving: Serving, name: str) -> int:
    """A figure of /proc/PID/status, summed over the gateway's whole tree."""
    found = 0
    for pid in (serving.process.pid, *serving.processes().values()):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found += next(int(line.split()[1]) for line in lines if line.startswith(name))
    return found


def forget_peak(serving: Serving) -> None:
    """Let VmHWM, the most that was resident, begin anew (proc(5), clear_refs)."""
    for pid in (serving.process.pid, *serving.processes().values()):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def transfer(serving: Serving, method: str, size: int) -> int:
    """Send or fetch so many bytes; how many arrived."""
    host, port = serving.url.removeprefix("http://").split(":")
    link = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        link.putrequest(method, f"/far/{size}", skip_accept_encoding=True)
        link.putheader("authorization", f"Bearer {serving.key}")
        if method == "PUT":
            link.putheader("content-length", str(size))
        link.endheaders()
        for sent in range(0, size if method == "PUT" else 0, len(BLOCK)):
            link.send(BLOCK[: size - sent])
        answer = link.getresponse()
        assert answer.status == 200
        if method == "PUT":
            return int(answer.read())
        arrived, block = 0, bytearray(len(BLOCK))
        while taken := answer.readinto(block):
            arrived += taken
        return arrived
    finally:
        link.close()


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_large_body_passes_in_bounded_memory(serving: Serving, method: str) -> None:
    """F1: "large uploads without buffering": who sends or fetches a file must not take the memory of all others."""
    transfer(serving, method, WARMING)
    forget_peak(serving)
    before_kb = figures_kb(serving, "VmRSS")

    assert transfer(serving, method, SIZE) == SIZE
    assert figures_kb(serving, "VmHWM") - before_kb <= MOST_GROWTH_KB


def test_an_idle_websocket_costs_little(serving: Serving) -> None:
    """F1: apps hold a WebSocket open for each user who is logged in; thousands must fit into one worker."""
    host, port = serving.url.removeprefix("http://").split(":")
    handshake = f"GET /far/x HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {serving.key}\r\n"
    handshake += (
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\nsec-websocket-version: 13\r\n\r\n"
    )

    with ExitStack() as stack:

        def hold(count: int) -> None:
            for _ in range(count):
                link = stack.enter_context(socket.create_connection((host, int(port)), 20))
                link.sendall(handshake.encode())
                assert b"101 Switching" in link.recv(4096)

        hold(20)
        before_kb = figures_kb(serving, "VmRSS")
        hold(WEBSOCKETS)

        assert figures_kb(serving, "VmRSS") - before_kb <= WEBSOCKETS * MOST_EACH_KB
