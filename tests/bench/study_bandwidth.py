"""Downloads at a tier's bandwidth beside downloads without one: how near the figure is met, and what pacing costs.

CPU is that of the gateway alone, in seconds for each GB that arrived; what it uses while it idles, measured just
before, is taken off, as slow downloads take long.
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
SECONDS, IDLE_S, BEGIN_S = 10.0, 3.0, 0.5
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
    rows: list[Figures] = []
    for connections in CONNECTIONS:
        with pinned(client.core):
            free = _download(target, keys[OPEN], connections)
            rows.append({"target": f"no figure, {connections}", **free, "problems": ()})
            for tier, figure in tiers.items():
                if figure:
                    row = _download(target, keys[tier], connections)
                    row |= {
                        "met": 100 * row["mbit_s"] / figure,
                        "added": 100 * (row["cpu_s_gb"] / free["cpu_s_gb"] - 1),
                    }
                    rows.append({"target": f"{figure} Mbit/s, {connections}", **row, "problems": ()})
    return rows


def _with_tiers(settings: dict[str, Any], port: int, tiers: Mapping[str, int]) -> dict[str, Any]:
    settings["upstreams"]["pour"] = {"url": f"http://127.0.0.1:{port}", "auth": "none"}
    settings["routes"].append({"path": "/pour/*", "upstream": "pour", "dialect": "plain"})
    settings["tiers"] |= {tier: {"bandwidth_mbit_s": figure} if figure else {} for tier, figure in tiers.items()}
    return settings


def _download(target: Target, headers: Mapping[str, str], connections: int) -> Figures:
    """What came in `SECONDS` over so many connections, and its CPU."""
    pids = tree(target.pid)
    idle = -cpu_s(pids)
    time.sleep(IDLE_S)
    idle_cores = (idle + cpu_s(pids)) / IDLE_S
    links = [socket.create_connection(("127.0.0.1", target.port)) for _ in range(connections)]
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    sizes = [0] * connections
    takers = [threading.Thread(target=_take, args=(link, sizes, place)) for place, link in enumerate(links)]
    for link, taker in zip(links, takers, strict=True):
        link.sendall(f"GET /pour/x HTTP/1.1\r\nhost: bench\r\n{fields}\r\n".encode())
        taker.start()
    time.sleep(BEGIN_S)
    used, size, took_s = -cpu_s(pids), -sum(sizes), -time.monotonic()
    time.sleep(SECONDS)
    used, size, took_s = used + cpu_s(pids), size + sum(sizes), took_s + time.monotonic()
    for link, taker in zip(links, takers, strict=True):
        with suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
        taker.join()
        link.close()
    return {
        "mbit_s": size * 8 / took_s / 1e6,
        "cpu_s_gb": (used - idle_cores * took_s) / size * 1e9,
        "core": used / took_s,
    }


def _take(link: socket.socket, sizes: list[int], place: int) -> None:
    block = bytearray(1 << 18)
    with suppress(OSError):
        while size := link.recv_into(block):
            sizes[place] += size


BANDWIDTH = Study(
    "bandwidth",
    f"Downloads of {SECONDS:.0f} s at a tier's figure, over one connection and over eight; CPU less what idling takes:",
    ("tollway",),
    (
        Column("mbit_s", "Mbit/s", 1),
        Column("met", "% of it", 2),
        Column("cpu_s_gb", "CPU s/GB", 3),
        Column("added", "% added", 1),
        Column("core", "cores", 3),
    ),
    ask,
)
