"""A tier's bandwidth over several workers: `tollway serve` as its users run it."""

import http.client
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.far_server import FarServer
from tests.support.serving import SETTINGS, Serving

WORKERS = 3
MBIT_S = 40
SIZE = 10_000_000
PACED_S = SIZE * 8 / (MBIT_S * 1e6)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A gateway of several workers before an upstream of large bodies."""
    with FarServer() as far:
        upstream = f"upstreams:\n  far: {{{{ url: http://127.0.0.1:{far.port}, auth: none }}}}"
        settings = SETTINGS.replace("upstreams:", upstream)
        settings = settings.replace("routes:", "routes:\n  - {{ path: /far/*, upstream: far, dialect: plain }}")
        settings = settings.replace("free: {{", f"free: {{{{ bandwidth_mbit_s: {MBIT_S},")
        directory = tmp_path_factory.mktemp("bandwidth")
        with Serving(directory, "--workers", str(WORKERS), settings=settings) as here:
            yield here


def fetch(serving: Serving, size: int) -> int:
    """Download so many bytes over a connection of its own; how many came."""
    host, port = serving.url.removeprefix("http://").split(":")
    link = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        link.request("GET", f"/far/{size}", headers={"authorization": f"Bearer {serving.key}"})
        return len(link.getresponse().read())
    finally:
        link.close()


def test_one_connection_has_the_whole_figure(serving: Serving) -> None:
    """D2: who pays for 250 Mbit/s has them with one download, however many workers the gateway runs. With a worker's
    share of them it would take as many times as long; what is between is left to a machine that is busy.
    """  # noqa: D205
    began_s = time.monotonic()
    assert fetch(serving, SIZE) == SIZE
    assert 0.8 * PACED_S < time.monotonic() - began_s < (WORKERS - 0.3) * PACED_S


def test_all_workers_together_give_no_more_than_the_figure(serving: Serving) -> None:
    """D2: connections at several workers are no way around the figure."""
    connections = 3 * WORKERS
    began_s = time.monotonic()
    with ThreadPoolExecutor(connections) as pool:
        fetched = pool.map(lambda _: fetch(serving, SIZE // connections), range(connections))
    assert list(fetched) == [SIZE // connections] * connections
    assert time.monotonic() - began_s > 0.8 * PACED_S
