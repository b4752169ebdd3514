"""Downloads at a tier's bandwidth beside downloads without one: how near the figure is met, and what pacing costs.

CPU is that of the gateway alone, in seconds for each GB that arrived; what it uses while it idles, measured before, is
taken off, as slow downloads take long. Pacing is held against the same rate without it: the upstream sends no more. At
full speed a GB costs less whoever serves it, as its bytes are still in the processor's caches.
"""

import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.bench.client import Client
from tests.bench.processes import cpu_s, free_port, pinned, running, tree, wait_until_listening
from tests.bench.study import Column, Figures, Study
from tests.bench.target import Candidate, Ground, Target
from tests.bench.tollway import key_of, start_tollway

FIGURES_MBIT_S = (50, 250, 500)
CONNECTIONS = (1, 8)
SECONDS, BEGIN_S = 10.0, 0.5
OPEN = "open"


def ask(ground: Ground, client: Client, candidate: Candidate) -> list[Figures]:
    """Each tier, over one connection and over several."""
    del candidate
    port = free_port()
    log = ground.scratch / "pour.log"
    command: list[str | Path] = [sys.executable, "-m", "tests.bench.pour", str(port)]
    source = ground.stack.enter_context(running(command, ground.cores.others, log))
    wait_until_listening(source, log, port)
    tiers = {f"paced{figure}": figure for figure in FIGURES_MBIT_S} | {OPEN: 0}
    target = start_tollway(ground, more=lambda settings: _with_tiers(settings, port, tiers))
    keys = {tier: key_of(ground, tier) for tier in tiers}
    pids = tree(target.pid)
    idle_cores = -cpu_s(pids)
    time.sleep(SECONDS)
    idle_cores = (idle_cores + cpu_s(pids)) / SECONDS
    rows: list[Figures] = []

    def row(name: str, tier: str, connections: int, mbit_s: int = 0) -> float:
        """Add one, each after those that it is compared with; its CPU for a GB."""
        links = _Links(target, keys[tier], connections, mbit_s)
        figures = links.measure(pids, idle_cores)
        rows.append({"target": f"{name}, {connections}", **figures, "problems": ()})
        return float(figures["cpu_s_gb"])

    for connections in CONNECTIONS:
        with pinned(client.core):
            free = row("no figure", OPEN, connections)
            for figure in FIGURES_MBIT_S:
                held = row(f"upstream sends {figure}", OPEN, connections, figure)
                paced = row(f"tier gives {figure}", f"paced{figure}", connections)
                rows[-1] |= {"met": 100 * rows[-1]["mbit_s"] / figure, "added": 100 * (paced / held - 1)}
                rows[-1]["above_free"] = 100 * (paced / free - 1)
    return rows


def _with_tiers(settings: dict[str, Any], port: int, tiers: Mapping[str, int]) -> dict[str, Any]:
    settings["upstreams"]["pour"] = {"url": f"http://127.0.0.1:{port}", "auth": "none"}
    settings["routes"].append({"path": "/pour/*", "upstream": "pour", "dialect": "plain"})
    settings["tiers"] |= {tier: {"bandwidth_mbit_s": figure} if figure else {} for tier, figure in tiers.items()}
    return settings


class _Links:
    """Downloads over so many connections, read as fast as they come; the upstream sends `mbit_s`, 0 for all it can."""

    def __init__(self, target: Target, headers: Mapping[str, str], connections: int, mbit_s: int) -> None:
        self._sizes = [0] * connections
        self._links = [socket.create_connection(("127.0.0.1", target.port)) for _ in range(connections)]
        self._takers = [threading.Thread(target=self._take, args=(place,)) for place in range(connections)]
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        for link, taker in zip(self._links, self._takers, strict=True):
            link.sendall(
                f"GET /pour/{mbit_s * 125_000 // connections} HTTP/1.1\r\nhost: bench\r\n{fields}\r\n".encode()
            )
            taker.start()

    def measure(self, pids: list[int], idle_cores: float) -> Figures:
        """What comes in `SECONDS`, and what CPU it takes; then hang up."""
        time.sleep(BEGIN_S)
        used, size, took_s = -cpu_s(pids), -sum(self._sizes), -time.monotonic()
        time.sleep(SECONDS)
        used, size, took_s = used + cpu_s(pids), size + sum(self._sizes), took_s + time.monotonic()
        for link, taker in zip(self._links, self._takers, strict=True):
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            taker.join()
            link.close()
        cpu_s_gb = (used - idle_cores * took_s) / size * 1e9
        return {"mbit_s": size * 8 / took_s / 1e6, "cpu_s_gb": cpu_s_gb, "core": 100 * used / took_s}

    def _take(self, place: int) -> None:
        link, block = self._links[place], bytearray(1 << 18)
        with suppress(OSError):
            while size := link.recv_into(block):
                self._sizes[place] += size


BANDWIDTH = Study(
    "bandwidth",
    f"Downloads of {SECONDS:.0f} s at a tier's figure, over one connection and over eight; CPU less what idling takes:",
    ("tollway",),
    (
        Column("mbit_s", "Mbit/s", 1),
        Column("met", "% of it", 2),
        Column("cpu_s_gb", "CPU s/GB", 3),
        Column("added", "% above upstream's", 1),
        Column("above_free", "% above no figure", 1),
        Column("core", "core %", 2),
    ),
    ask,
)
