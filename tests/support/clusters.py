"""Real Redis Clusters and Sentinels on loopback, made of the same Valkey binary as every other test server.

Promises: nodes on free ports, each with a unix socket besides by which a test speaks to that node alone; whole and
answering when the fixture gives it; ended by pid. `cluster` is one Cluster of three primaries for each xdist worker,
emptied before each test.
"""

import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from gateway.quota.redis_cluster import SLOTS, slot_of
from tests.support.valkey import ValkeyServer

WHOLE_WITHIN_S = 30.0


class Node(ValkeyServer):
    """A server that listens on 127.0.0.1:`port` too, and keeps that port when it is started again."""

    def __init__(self, path: Path, *arguments: str) -> None:
        path.mkdir()
        self.port, bus = free_ports(2)
        ports = "--bind", "127.0.0.1", "--port", str(self.port), "--cluster-port", str(bus)
        super().__init__(path, *ports, *arguments)
        self.bus_port = bus

    @property
    def place(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def ask(self, *words: str | int) -> str:
        """One command's reply as text."""
        return self.call(" ".join(map(str, words)).encode()).decode()

    @property
    def name(self) -> str:
        """The node's id in its Cluster."""
        return self.ask("CLUSTER", "MYID").split("\r\n")[1]


class Cluster:
    """`primaries` share the slots evenly; `replicas`, if any, follow one each."""

    def __init__(self, primaries: Sequence[Node], replicas: Sequence[Node]) -> None:
        self.primaries = list(primaries)
        self.replicas = list(replicas)

    @property
    def nodes(self) -> list[Node]:
        """All nodes."""
        return self.primaries + self.replicas

    @property
    def url(self) -> str:
        """The Cluster, by its primaries of the first hour."""
        return f"redis+cluster://{','.join(node.place for node in self.primaries)}"

    def owner(self, key: str | bytes) -> Node:
        """The primary, of the first hour, that a key belongs to."""
        return self.primaries[slot_of(key) * len(self.primaries) // SLOTS]

    def form(self) -> None:
        """Give out the slots, make the nodes meet, and wait until each says that the Cluster is whole."""
        count = len(self.primaries)
        bounds = [-(-number * SLOTS // count) for number in range(count + 1)]
        for number, node in enumerate(self.primaries):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        first, *others = self.nodes
        for node in others:
            first.ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)
        self._wait(lambda node: self._told(node, "cluster_known_nodes", len(self.nodes)))
        for primary, replica in zip(self.primaries, self.replicas, strict=False):
            replica.ask("CLUSTER", "REPLICATE", primary.name)
        self._wait(lambda node: self._told(node, "cluster_state", "ok") and self._follows(node))

    def _follows(self, node: Node) -> bool:
        return node not in self.replicas or "master_link_status:up" in node.ask("INFO", "replication")

    def _told(self, node: Node, field: str, value: object) -> bool:
        return f"{field}:{value}\r\n" in node.ask("CLUSTER", "INFO")

    def _wait(self, condition: Callable[[Node], bool]) -> None:
        deadline = time.monotonic() + WHOLE_WITHIN_S
        while not all(condition(node) for node in self.nodes):
            assert time.monotonic() < deadline, [node.ask("CLUSTER", "INFO") for node in self.nodes]
            time.sleep(0.01)


@contextmanager
def formed(*, replicas: bool = False, node_timeout_ms: int = 5000) -> Iterator[Cluster]:
    """A Cluster of three primaries, each with a replica if wanted."""
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms)]
    options += ["--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"]
    options += ["--repl-diskless-sync-delay", "0"]
    with tempfile.TemporaryDirectory(prefix="twc") as folder, ExitStack() as stack:
        nodes = [stack.enter_context(Node(Path(folder) / str(number), *options)) for number in range(3 + 3 * replicas)]
        made = Cluster(nodes[:3], nodes[3:])
        made.form()
        yield made


@pytest.fixture(scope="session")
def cluster_nodes() -> Iterator[Cluster]:
    """The Cluster of this xdist worker."""
    with formed() as made:
        yield made


@pytest.fixture
def cluster(cluster_nodes: Cluster) -> Cluster:
    """The worker's Cluster, empty of keys and scripts."""
    for node in cluster_nodes.nodes:
        node.call(b"FLUSHALL")
        node.call(b"SCRIPT FLUSH")
    return cluster_nodes


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
